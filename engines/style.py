"""Style packs: what a style is made of, read and checked; the only place that knows the format.

A pack is a folder, or a .zip of one:

    style.json         what follows in `Style`, and the sha256 of every other file
    model.onnx         image uint8 [n, h, w, 3], mix float32 [styles], strength float32 [1], and perhaps
                       origin int64 [2] -> stylized uint8 [n, h, w, 3]; weights inside. The origin is where
                       the picture's corner lies on the style's canvas: row and column, in blocks of
                       `multiple` pixels, whole numbers of either sign
    model.fp16.onnx    the same graph computing in float16
    model.int8.onnx    the same with int8 convolutions; few packs have it
    golden.npz         a small input and what the reference painted of it
    preview.jpg

A file may be there compressed, under its name with .gz behind it, as the models are that fauve writes. Its
sha256 is of what is in it.
"""

import gzip
import hashlib
import io
import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from engines.atomic_write import atomic_write
from engines.errors import StyleError
from engines.look import Look

FORMAT = 1
MANIFEST = "style.json"
COMPRESSED = ".gz"
GOLDEN = "golden.npz"
BUNDLED = Path(__file__).parent / "styles"
LARGEST = 256 << 20
"""Bytes that a pack may unpack to: a bound against archives made to fill the memory."""

LARGEST_MULTIPLE, LARGEST_HEIGHT = 256, 16384
"""Pixels that a graph may want its sides to be multiples of, and that strokes may be made for."""

Size = tuple[int, int]
"""(width, height) in pixels."""

Inputs = dict[str, NDArray[Any]]
"""What a graph takes beside the picture, by name, in the order of the contract."""

Layout = Literal["nchw", "nhwc"]
ValueRange = Literal["0..255", "0..1", "-1..1"]


@dataclass(frozen=True)
class Credit:
    """The painting that a style was learned from."""

    name: str
    """The style's name in a mix."""
    title: str
    artist: str
    year: int
    rights: str = "public domain"
    others: tuple[str, ...] = ()
    """Names of the files, or folders, of other paintings that it learned from."""


@dataclass(frozen=True)
class Golden:
    """An input and what the reference made of it: the oracle for every engine."""

    image: NDArray[np.uint8]
    look: Look
    stylized: NDArray[np.uint8]


@dataclass(frozen=True)
class Place:
    """How a picture is given to a graph: with pixels more at its edges, and with other inputs beside it."""

    top: int
    bottom: int
    left: int
    right: int
    inputs: Inputs

    @property
    def margins(self) -> tuple[int, int, int, int]:
        """Pixels more at the top, the bottom, the left and the right."""
        return self.top, self.bottom, self.left, self.right


@dataclass(frozen=True)
class Style:
    """A style pack whose files are all there and unaltered."""

    name: str
    title: str
    styles: tuple[str, ...]
    """Names of the styles in the pack, in the order of the graph's `mix`."""
    models: Mapping[str, str]
    """The model's file name by precision: "float32", "float16", "int8"."""
    multiple: int = 1
    """What the graph needs width and height to be multiples of."""
    native_height: int = 480
    """Shorter side of the picture, in pixels, at which the strokes look as they should."""
    size: Size | None = None
    """The only size that the graph takes, None for any."""
    license: str = "unknown"
    credits: tuple[Credit, ...] = ()
    recipe: str = ""
    """Digest of the training recipe."""
    card: Mapping[str, Any] = field(default_factory=dict)
    """What was measured about the pack, and how it was made."""
    notes: str = ""
    """What was assumed about a model that came without a pack."""
    carried: bool = False
    """Whether the graph takes an origin, so that its canvas moves with the scene."""
    mix: Mapping[str, float] = field(default_factory=dict, compare=False)
    """What to paint where nobody says: the style that the pack was asked for by, if it was."""
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False, compare=False)
    """Contents of the pack by file name."""

    @classmethod
    def load(cls, pack: str | Path) -> "Style":
        """Read a pack: the name of a bundled one, or of a style in one ("live/cubism"; "cubism" is that of
        the first pack, by name, that has it), a folder or a .zip.

        Raises:
            StyleError: not there, or something in it is missing, altered, malformed or hostile. Names the
                file and says what to do.
        """
        name, path = str(pack), Path(pack)
        try:
            if os.sep not in name and (BUNDLED / name / MANIFEST).is_file():
                path = BUNDLED / name
            # A folder of videos may be called like a style.
            if not (path / MANIFEST).is_file() and not (path.is_file() and zipfile.is_zipfile(path)):
                *holders, style = path.as_posix().split("/")
                for holder in bundled():
                    if holders in ([], [holder]) and style in (found := cls.load(holder)).styles:
                        return replace(found, mix={style: 1.0})
            if path.is_dir():
                return _parse(_read_folder(path), name)
            if path.is_file():
                return _parse(_read_zip(path), name)
        except OSError as error:
            raise StyleError(f"{name}: cannot be read ({error.strerror})") from error
        raise StyleError(_not_found(name))

    @property
    def digest(self) -> str:
        """The sha256 of its models: what it paints."""
        digest = hashlib.sha256()
        for precision in sorted(self.models):
            digest.update(hashlib.sha256(self.model(precision)).digest())
        return digest.hexdigest()

    def model(self, precision: str = "float32") -> bytes:
        """The ONNX model of that precision, serialised.

        Raises:
            StyleError: the pack has none.
        """
        try:
            return self.files[self.models[precision]]
        except KeyError:
            has = ", ".join(self.models)
            raise StyleError(f"{self.name}: no {precision} model in this pack; there is {has}") from None

    def place(self, size: Size, look: Look) -> Place:
        """How a picture of `size` is given to the graph.

        One of a scene that moves has room for a block more each way, however far it has moved: runtimes are
        compiled for a size.

        Raises:
            ValueError: the look names a style that is not in this pack.
        """
        inputs: Inputs = {"mix": look.weights(self.styles), "strength": np.array([look.strength], np.float32)}
        if self.carried:
            inputs["origin"] = np.zeros(2, np.int64)
        if self.size is not None:
            return Place(0, 0, 0, 0, inputs)
        multiple, (width, height) = self.multiple, size
        if not self.carried or look.moved is None:
            return Place(0, -height % multiple, 0, -width % multiple, inputs)
        right, down = (round(pixels) for pixels in look.moved)
        (row, top), (column, left) = divmod(-down, multiple), divmod(-right, multiple)
        inputs["origin"] = np.array([row, column], np.int64)
        room = [-(-(side + multiple - 1) // multiple) * multiple - side for side in (height, width)]
        return Place(top, room[0] - top, left, room[1] - left, inputs)

    def golden(self) -> Golden | None:
        """The pack's golden pair; None for a model that came without one.

        Raises:
            StyleError: it is there and broken.
        """
        if GOLDEN not in self.files:
            return None
        try:
            with zipfile.ZipFile(io.BytesIO(self.files[GOLDEN])) as archive:
                _bounded(archive)
            with np.load(io.BytesIO(self.files[GOLDEN]), allow_pickle=False) as arrays:
                image, stylized = arrays["image"], arrays["stylized"]
                mix = {name: float(weight) for name, weight in zip(self.styles, arrays["mix"], strict=True)}
                look = Look(mix, float(arrays["strength"][0]))
        except Exception as error:  # numpy lets through what it meets in damaged arrays
            raise StyleError(f"{self.name}: {GOLDEN} is broken: {error}") from error
        pictures = all(a.dtype == np.uint8 and a.ndim == 3 and a.shape[2] == 3 for a in (image, stylized))
        if not pictures or stylized.shape != image.shape or not image.size:
            raise StyleError(f"{self.name}: {GOLDEN} does not hold two uint8 pictures of one size")
        return Golden(image, look, stylized)


def bundled() -> list[str]:
    """Names of the styles that come with fauve, sorted."""
    return sorted(path.parent.name for path in BUNDLED.glob(f"*/{MANIFEST}"))


def write_pack(
    folder: Path,
    *,
    name: str,
    title: str,
    credits: Sequence[Credit],
    files: Mapping[str, bytes],
    models: Mapping[str, str],
    multiple: int,
    native_height: int,
    license: str,
    recipe: str = "",
    card: Mapping[str, Any] | None = None,
    force: bool = False,
) -> Style:
    """Write a pack to `folder`, whole or not at all, and read it back.

    Args:
        files: contents by file name: the models, golden.npz and preview.jpg.
        models: file name of the model by precision.
        force: replace a pack that is there.

    Raises:
        StyleError: as `refuse_what_is_there`, or what was given is no valid pack, or it cannot be written.
    """
    refuse_what_is_there(folder, force)
    folder = folder.resolve()
    manifest = {
        "format": FORMAT,
        "name": name,
        "title": title,
        "styles": [asdict(credit) for credit in credits],
        "models": dict(models),
        "multiple": multiple,
        "native_height": native_height,
        "license": license,
        "recipe": recipe,
        "card": dict(card or {}),
        "files": {file: hashlib.sha256(content).hexdigest() for file, content in sorted(files.items())},
    }
    text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    style = _parse({**files, MANIFEST: text.encode()}, str(folder))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
            new, old = Path(temporary, "new"), Path(temporary, "old")
            new.mkdir()
            for file, content in {**files, MANIFEST: text.encode()}.items():
                if file in models.values():
                    # Without the time, so that the same pack is the same bytes.
                    file, content = file + COMPRESSED, gzip.compress(content, mtime=0)
                (new / file).write_bytes(content)
            if folder.exists():
                folder.rename(old)
            try:
                new.rename(folder)
            except OSError:
                if old.exists():
                    old.rename(folder)
                raise
    except OSError as error:
        raise StyleError(f"{folder}: cannot be written: {error.strerror}") from error
    return style


def refuse_what_is_there(folder: Path, force: bool) -> None:
    """See that a pack can be written to `folder`.

    Raises:
        StyleError: it is there and `force` is not given, or it is something else than a pack.
    """
    if folder.exists() and not force:
        raise StyleError(f"{folder} is there already; give another name or --force")
    if folder.exists() and not (folder / MANIFEST).is_file():
        raise StyleError(f"{folder} is no style pack, and --force replaces nothing else; give another name")


def write_card(folder: Path, card: Mapping[str, Any]) -> None:
    """Replace the card of the pack in `folder` at once; its other files and their checksums stay.

    Raises:
        StyleError: it is no pack, or cannot be written.
    """
    # By its whole path, because a bundled pack goes before a folder of its name.
    Style.load(folder.resolve())
    path = folder / MANIFEST
    manifest = {**_manifest(path.read_bytes(), str(folder)), "card": dict(card)}
    try:
        atomic_write(path, (json.dumps(manifest, indent=2, ensure_ascii=False) + "\n").encode())
    except OSError as error:
        raise StyleError(f"{path}: cannot be written: {error.strerror}") from error


def check_contract(model: bytes, styles: int, where: str) -> bool:
    """Check that `model` is an ONNX model with the packs' inputs and output and with its weights inside.

    Returns:
        Whether it takes an origin.

    Raises:
        StyleError: it is not.
    """
    from onnx import TensorProto

    graph = read_graph(model, where)
    uint8, float32 = TensorProto.UINT8, TensorProto.FLOAT
    wanted = [{"image": (uint8, 4), "mix": (float32, 1), "strength": (float32, 1)}, {"stylized": (uint8, 4)}]
    found = [
        {
            value.name: (value.type.tensor_type.elem_type, len(value.type.tensor_type.shape.dim))
            for value in side
        }
        for side in (graph.input, graph.output)
    ]
    carried = found[0].pop("origin", None)
    if found != wanted or carried not in (None, (TensorProto.INT64, 1)):
        takes, gives = (", ".join(side) or "nothing" for side in found)
        raise StyleError(
            f"{where}: not a style model: it must take image, mix and strength and give stylized, "
            f"but takes {takes} and gives {gives}"
        )
    mix = next(value for value in graph.input if value.name == "mix").type.tensor_type.shape.dim[0]
    if mix.dim_value not in (0, styles):
        raise StyleError(f"{where}: the model mixes {mix.dim_value} styles, {MANIFEST} lists {styles}")
    return carried is not None


def read_graph(model: bytes, where: str) -> Any:
    """The graph of a serialised ONNX model whose weights are inside.

    Raises:
        StyleError: not ONNX, or weights in other files.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        proto = onnx.load_model_from_string(model)
    except DecodeError as error:
        raise StyleError(f"{where}: not an ONNX model, or only a part of one") from error
    if not proto.graph.node:
        raise StyleError(f"{where}: an ONNX model without a graph")
    for tensor in _tensors(proto):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "?")
            raise StyleError(
                f"{where}: keeps weights in another file, {location!r}; save it with its weights inside"
            )
    return proto.graph


def _tensors(message: Any) -> Iterator[Any]:
    """Every tensor that is stored in a message of ONNX, however deep: in subgraphs, functions, constants."""
    from google.protobuf.message import Message

    if message.DESCRIPTOR.name == "TensorProto":
        yield message
        return
    for field_, value in message.ListFields():
        if field_.message_type is not None:
            for each in [value] if isinstance(value, Message) else value:
                yield from _tensors(each)


def _not_found(pack: str) -> str:
    names = sorted({*bundled(), *(style for name in bundled() for style in Style.load(name).styles)})
    whole = [f"{name}/{style}" for name in bundled() for style in Style.load(name).styles]
    close = get_close_matches(pack, whole if "/" in pack else names, 1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"no style {pack!r}; {hint}bundled: {', '.join(names) or 'none'}; or give a pack's folder or .zip"


def _read_folder(folder: Path) -> dict[str, bytes]:
    root = folder.resolve()
    if not (folder / MANIFEST).is_file():
        raise StyleError(f"{folder}: no style pack: {MANIFEST} is missing")
    contents: dict[str, bytes] = {}
    left = LARGEST
    for name in [MANIFEST, *_listed((folder / MANIFEST).read_bytes(), str(folder))]:
        path = folder / name
        if not path.exists() and (folder / (name + COMPRESSED)).exists():
            path = folder / (name + COMPRESSED)
        if not path.resolve().is_relative_to(root):
            raise StyleError(f"{folder}: {name} leads out of the pack; it may be hostile, do not use it")
        try:
            if path.stat().st_size > left:
                raise ValueError(f"it is larger than {LARGEST >> 20} MiB")
            content = path.read_bytes()
            contents[name] = content if path.name == Path(name).name else _decompressed(content, left)
            left -= len(contents[name])
        except ValueError as error:
            raise StyleError(f"{folder}: {name} cannot be read ({error}); get the pack again") from error
        except OSError as error:
            raise StyleError(
                f"{folder}: {name} cannot be read ({error.strerror}); get the pack again"
            ) from error
    return contents


def _decompressed(content: bytes, most: int) -> bytes:
    """What is in a .gz file.

    Raises:
        ValueError: more than `most` bytes, or it is damaged.
    """
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)  # with the header of gzip
    try:
        unpacked = unpacker.decompress(content, most + 1)
    except zlib.error as error:
        raise ValueError(f"it is damaged: {error}") from error
    if len(unpacked) > most:
        raise ValueError(f"it is larger than {LARGEST >> 20} MiB")
    if not unpacker.eof:
        raise ValueError("only a part of it is there")
    return unpacked


def _read_zip(path: Path) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(path) as archive:
            _bounded(archive)
            names = archive.namelist()
            manifest = min((n for n in names if PurePosixPath(n).name == MANIFEST), key=len, default=None)
            if manifest is None:
                raise StyleError(f"{path}: no style pack: {MANIFEST} is missing")
            prefix = manifest.removesuffix(MANIFEST)

            left = LARGEST

            def read(name: str) -> bytes:
                nonlocal left
                stored = next((n for n in (name, name + COMPRESSED) if prefix + n in names), None)
                if stored is None:
                    raise StyleError(f"{path}: {name} is missing; get the pack again")
                info = archive.getinfo(prefix + stored)
                with archive.open(info) as member:
                    # Not all that there is: the archive's table may tell too small a size.
                    content = member.read(info.file_size)
                if stored != name:
                    content = _decompressed(content, left)
                left -= len(content)
                if left < 0:
                    raise ValueError(f"it is larger than {LARGEST >> 20} MiB")
                return content

            text = read(MANIFEST)
            return {MANIFEST: text, **{name: read(name) for name in _listed(text, str(path))}}
    except StyleError:
        raise
    except Exception as error:  # zipfile lets through what any decompressor raises on damaged data
        raise StyleError(f"{path}: not a style pack, or a damaged .zip of one ({error})") from error


def _bounded(archive: zipfile.ZipFile) -> None:
    """Refuse, by a ValueError, an archive that would fill the memory."""
    members = archive.infolist()
    # Python bounds what comes of these two only.
    if any(each.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for each in members):
        raise ValueError("something in it is compressed otherwise than by deflate")
    if sum(each.file_size for each in members) > LARGEST:
        raise ValueError(f"it is larger than {LARGEST >> 20} MiB")


def _manifest(text: bytes, where: str) -> dict[str, Any]:
    try:
        manifest = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StyleError(f"{where}: {MANIFEST} is not JSON ({error})") from error
    if not isinstance(manifest, dict):
        raise StyleError(f"{where}: {MANIFEST} is not a table")
    if manifest.get("format") != FORMAT:
        version = manifest.get("format")
        raise StyleError(
            f"{where}: {MANIFEST} has format {version!r}, this fauve reads {FORMAT}; a newer one may read it"
        )
    return manifest


def _listed(text: bytes, where: str) -> list[str]:
    """Names of the pack's other files, each within the pack."""
    files = _manifest(text, where).get("files")
    if not isinstance(files, dict) or not all(isinstance(digest, str) for digest in files.values()):
        raise StyleError(f"{where}: {MANIFEST} has no table of files with their sha256")
    for name in files:
        parts = PurePosixPath(name.replace("\\", "/"))
        named = bool(name) and name.isprintable()
        if not named or parts.is_absolute() or ".." in parts.parts or ":" in name:
            raise StyleError(
                f"{where}: file {name!r} leads out of the pack, or no file is called so; it may be hostile, "
                f"do not use it"
            )
    return list(files)


def _credit(*, others: object = (), **credit: Any) -> Credit:
    if not isinstance(others, list | tuple) or not all(isinstance(other, str) for other in others):
        raise TypeError(f"'others' must be a list of names, not {others!r}")
    return Credit(**credit, others=tuple(others))


def _parse(contents: Mapping[str, bytes], where: str) -> Style:
    manifest = _manifest(contents[MANIFEST], where)
    for name, digest in manifest["files"].items():
        if hashlib.sha256(contents[name]).hexdigest() != digest:
            raise StyleError(
                f"{where}: {name} is damaged or was altered (sha256 differs); get the pack again"
            )

    def entry(key: str, kind: type[Any], default: Any = None) -> Any:
        value = manifest.get(key, default)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise StyleError(f"{where}: {key!r} in {MANIFEST} must be a {kind.__name__}, not {value!r}")
        return value

    try:
        credits = tuple(_credit(**credit) for credit in entry("styles", list))
    except TypeError as error:
        raise StyleError(f"{where}: 'styles' in {MANIFEST} is malformed: {error}") from error
    names = tuple(credit.name for credit in credits)
    if not names or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise StyleError(f"{where}: 'styles' in {MANIFEST} must list styles with names of their own")
    models = cast(dict[str, str], entry("models", dict))
    known = all(isinstance(file, str) and file in manifest["files"] for file in models.values())
    if "float32" not in models or not known:
        raise StyleError(f"{where}: 'models' in {MANIFEST} must name a float32 model among the files")
    multiple, native_height = entry("multiple", int), entry("native_height", int)
    if not 1 <= multiple <= LARGEST_MULTIPLE or not 1 <= native_height <= LARGEST_HEIGHT:
        raise StyleError(f"{where}: 'multiple' or 'native_height' in {MANIFEST} is out of range")
    carried = {check_contract(contents[file], len(names), f"{where}: {file}") for file in models.values()}
    if len(carried) > 1:
        raise StyleError(f"{where}: some of its models take an origin, and others do not")
    return Style(
        name=entry("name", str),
        title=entry("title", str),
        styles=names,
        models=models,
        multiple=multiple,
        native_height=native_height,
        license=entry("license", str, "unknown"),
        credits=credits,
        recipe=entry("recipe", str, ""),
        card=entry("card", dict, {}),
        carried=carried.pop(),
        files={name: content for name, content in contents.items() if name != MANIFEST},
    )
