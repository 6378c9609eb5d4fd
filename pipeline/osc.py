"""Open Sound Control, in and out (OSC 1.0, over UDP).

In:  /fauve/strength 0.7 · /fauve/style NAME · /fauve/mix/NAME 0.4 · /fauve/crossfade 2.0 · /fauve/pack NAME ·
     /fauve/bypass, /fauve/freeze, /fauve/blackout and /fauve/panic with 1 or 0, or alone to turn them over ·
     /fauve/style/NAME, /fauve/style/next and /fauve/style/previous with 1 or alone, for buttons that send no
     text; their 0 does nothing (a style named next or previous is chosen by /fauve/style NAME) ·
     /fauve/state asks for the state, which goes back to who asked.
Out: the addresses of the first two lines, after each change from anywhere; of many changes the last. The mix
     of styles that only an earlier pack had is 0.
"""

import contextlib
import socket
import sys
import threading
import time
from typing import Any

from pipeline.controls import STEPS, SWITCHES, Complaints, Controls, leading, switched
from pipeline.errors import SinkError
from pipeline.serving import in_url

ROOT = "/fauve/"

TELL_EVERY = 0.02
"""Seconds between two tellings of the state, so that a thousand changes a second cost no pictures."""

RECEIVED = 1 << 20
"""Bytes of messages that may wait, as far as the system allows it."""

LARGEST = 65_535
"""Bytes of a packet, as large as UDP has them: a bundle may set all that there is."""


BUNDLE = b"#bundle\0"
"""What a bundle begins with; eight bytes of its time follow."""

TYPES = frozenset("ifhdsbrmtTFN[]")
"""Tags of the values that python-osc knows; behind others it reads in the wrong place."""


def messages_in(packet: bytes) -> list[bytes]:
    """The messages of a packet, in order: itself, or what a bundle holds, and the bundles in it.

    python-osc would read a bundle for ever in which a size is negative.

    Raises:
        ValueError: something in a bundle is cut off.
    """
    if not packet.startswith(BUNDLE):
        return [packet]
    found, at = [], len(BUNDLE) + 8
    while at < len(packet):
        begin = at + 4
        at = begin + int.from_bytes(packet[at:begin], "big")
        if at > len(packet):
            raise ValueError("a bundle is cut off")
        found += messages_in(packet[begin:at])
    return found


class Osc:
    """Takes messages for `controls`, and tells its state.

    Args:
        reply: (host, port) that the state is sent to after each change; None tells only who asks.

    Raises:
        SinkError: the port is taken, `reply` means no address, or python-osc is not installed.
    """

    def __init__(self, controls: Controls, host: str, port: int, reply: tuple[str, int] | None) -> None:
        try:
            from pythonosc.dispatcher import Dispatcher
            from pythonosc.osc_message import OscMessage
            from pythonosc.osc_message_builder import build_msg
            from pythonosc.osc_server import BlockingOSCUDPServer
            from pythonosc.parsing.osc_types import get_string
        except ImportError as error:
            raise SinkError('--osc needs pip install "fauve[live]"') from error
        self._controls = controls
        self._message = build_msg
        self._complaints = Complaints("OSC")
        self._without: dict[str, float] = {}
        """No share of each style that was told of: a fader stays where the last message has put it."""
        take, complain = self._take, self._complaints.say

        def read(packet: bytes) -> OscMessage:
            address, end = get_string(packet, 0)
            tags = get_string(packet, end)[0] if packet[end:] else ""
            # As OSC has them; others would do what they like to the terminal that they are complained of in.
            if not (address + tags).isprintable():
                raise ValueError("an address or a type is not printable")
            unknown = set(tags[1:]) - TYPES
            if unknown:
                raise ValueError(f"{address} has values of the unknown type {', '.join(sorted(unknown))}")
            message = OscMessage(packet)
            # python-osc reads zeros where a number is cut off.
            if message.params and OscMessage(packet + b"\xff" * 4).params != message.params:
                raise ValueError("a number is cut off, or none")
            return message

        class Taker(Dispatcher):
            # What a bundle wants done later is done at once, as nothing else is taken while it is waited for.
            def call_handlers_for_packet(self, data: bytes, client_address: tuple[str, int]) -> list[Any]:
                for message in [read(packet) for packet in messages_in(data)]:
                    take(client_address, message.address, *message.params)
                return []

        class Server(BlockingOSCUDPServer):
            max_packet_size = LARGEST

            def handle_error(self, request: Any, client_address: Any) -> None:
                complain(f"from {client_address[0]}: a packet that cannot be read: {sys.exception()}")

        try:
            # In one thread: messages take effect in the order in which they come.
            self._server = Server((host, port), Taker())
        except (OSError, UnicodeError) as error:  # the latter of names that none can be, such as 10.0..1
            why = getattr(error, "strerror", error)
            raise SinkError(f"--osc {in_url(host)}:{port}: cannot listen there: {why}") from error
        listener = None if reply is None else self._resolved(*reply)
        self.port = int(self._server.server_address[1])
        self._server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVED)
        threading.Thread(target=self._server.serve_forever, name="osc", daemon=True).start()
        self._changed, self._closed = threading.Event(), False
        if listener is not None:
            controls.listen(lambda state: self._changed.set())
            threading.Thread(target=self._tell_changes, args=(listener,), name="osc out", daemon=True).start()

    def _resolved(self, host: str, port: int) -> Any:
        """The address that a host's name means for the socket that listens, which is of one family."""
        family = self._server.socket.family
        try:
            return socket.getaddrinfo(host, port, family, socket.SOCK_DGRAM, flags=socket.AI_V4MAPPED)[0][4]
        except (OSError, UnicodeError) as error:
            self._server.server_close()
            to, why = f"--osc-reply {in_url(host)}:{port}", getattr(error, "strerror", error)
            raise SinkError(f"{to}: cannot be sent to from where --osc listens: {why}") from error

    def _take(self, sender: tuple[str, int], address: str, *values: Any) -> None:
        if not address.startswith(ROOT):
            return
        name = address.removeprefix(ROOT)
        button = name.removeprefix("style/")
        try:
            if name == "state":
                self._tell(sender)
            elif button != name:
                # A button that is let go sends 0.
                if values and not switched(name, values[0]):
                    return
                if button in STEPS:
                    self._controls.step_style(button)
                else:
                    self._controls.set("style", button)
            elif values:
                self._controls.set(name, values[0])
            elif name in (*SWITCHES, "panic"):
                self._controls.toggle(name)
            else:
                self._complaints.say(f"{address} from {sender[0]} comes without a value")
        except ValueError as error:
            self._complaints.say(f"{address} from {sender[0]}: {error}")

    def _tell_changes(self, listener: tuple[str, int]) -> None:
        while not self._closed:
            self._changed.wait()
            self._changed.clear()
            self._tell(listener)
            time.sleep(TELL_EVERY)

    def _tell(self, listener: tuple[str, int]) -> None:
        state = self._controls.state
        mix = {**self._without, **state["mix"]}
        self._without = dict.fromkeys(mix, 0.0)
        values = {
            **{name: state[name] for name in ("strength", "crossfade")},
            # The name of a folder can be any bytes.
            "pack": state["pack"].encode("utf-8", "replace").decode(),
            **{name: int(state[name]) for name in SWITCHES},
            **{f"mix/{style}": float(weight) for style, weight in mix.items()},
            "style": leading(state["mix"]),
        }
        for name, value in values.items():
            # Whoever listened may have gone, or the socket be closed at the end.
            with contextlib.suppress(OSError):
                self._server.socket.sendto(self._message(ROOT + name, value).dgram, listener)

    def close(self) -> None:
        """Stop listening."""
        self._closed = True
        self._changed.set()
        self._server.shutdown()
        self._server.server_close()
