"""A virtual camera that other programs see: v4l2loopback on Linux, OBS Virtual Camera elsewhere."""

from typing import Any

from pipeline.errors import SinkError
from pipeline.frame import Frame, VideoInfo
from pipeline.sinks import Sink


class CameraSink(Sink):
    """The painted picture as a camera.

    Args:
        address: camera: or camera:/dev/video10.

    Raises:
        SinkError: there is no driver for virtual cameras, or pyvirtualcam is not installed.
    """

    def __init__(self, address: str, info: VideoInfo) -> None:
        self.name = address
        device = address.removeprefix("camera:") or None
        try:
            import pyvirtualcam
        except ImportError as error:
            raise SinkError(f'{address}: needs pip install "fauve[live]"') from error
        try:
            self._camera: Any = pyvirtualcam.Camera(
                info.width, info.height, float(info.rate), device=device, print_fps=False
            )
        except (RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[-1]
            raise SinkError(
                f"{address}: no virtual camera here ({reason}); Linux needs the module v4l2loopback, macOS "
                "and Windows need OBS to be installed"
            ) from error

    def write(self, frame: Frame) -> None:
        """Show one frame."""
        self._camera.send(frame.image)

    def mux(self, packet: Any) -> None:
        """A camera is silent."""

    def close(self) -> None:
        """Let go of the camera."""
        self._camera.close()

    def abort(self) -> None:
        """Let go of the camera."""
        self._camera.close()
