"""Packs as they come: whole, damaged, altered, hostile."""

import gzip
import hashlib
import io
import json
import shutil
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest

import engines.style
from engines import Style, StyleError, bundled
from engines.style import Credit, write_pack
from tests.packs import tiny_model, tiny_pack


@pytest.fixture
def compressed(tmp_path):
    """A pack as fauve writes it."""
    tiny_pack(tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture
def pack(compressed):
    """The same with its model as it is."""
    stored = compressed / "model.onnx.gz"
    (compressed / "model.onnx").write_bytes(gzip.decompress(stored.read_bytes()))
    stored.unlink()
    return compressed


def edit(pack, **changes):
    """Change the manifest, keeping its sums right."""
    manifest = json.loads((pack / "style.json").read_text("utf-8")) | changes
    (pack / "style.json").write_text(json.dumps(manifest), "utf-8")


def put(pack, name, content):
    """Replace a file of the pack and its sum."""
    manifest = json.loads((pack / "style.json").read_text("utf-8"))
    (pack / name).write_bytes(content)
    edit(pack, files=manifest["files"] | {name: hashlib.sha256(content).hexdigest()})


def zipped(pack, folder=""):
    path = pack.parent / "tiny.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in pack.iterdir():
            archive.write(file, folder + file.name)
    return path


def test_a_folder(pack):
    style = Style.load(pack)
    assert (style.name, style.styles, style.multiple) == ("tiny", ("warm", "cold"), 8)
    assert style.model() == (pack / "model.onnx").read_bytes()


def test_a_model_is_stored_compressed_and_is_the_same(compressed):
    assert sorted(file.name for file in compressed.iterdir()) == ["model.onnx.gz", "style.json"]
    assert (compressed / "model.onnx.gz").stat().st_size < 0.9 * len(tiny_model(2))
    again = tiny_pack(compressed.with_name("again"))
    for path in (compressed, zipped(compressed)):
        style = Style.load(path)
        assert style.files == {"model.onnx": tiny_model(2)}
        assert style.digest == again.digest
    stored = [path / "model.onnx.gz" for path in (compressed, compressed.with_name("again"))]
    assert stored[0].read_bytes() == stored[1].read_bytes()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda content: content[:-20], "only a part of it is there"),
        (lambda content: content[:50] + bytes(50) + content[100:], "it is damaged: "),
        (lambda content: b"", "only a part of it is there"),
        (lambda content: gzip.compress(bytes(300 << 20)), "it is larger than 256 MiB"),
    ],
)
def test_a_compressed_model_that_is_damaged_or_made_to_fill_the_memory(compressed, damage, reason):
    stored = compressed / "model.onnx.gz"
    stored.write_bytes(damage(stored.read_bytes()))
    tracemalloc.start()
    for path in (compressed, zipped(compressed)):
        with pytest.raises(StyleError, match=f"{path.name}: .*{reason}"):
            Style.load(path)
    assert tracemalloc.get_traced_memory()[1] < 600 << 20
    tracemalloc.stop()


def test_what_is_compressed_counts_as_large_as_it_is(compressed, monkeypatch):
    put(compressed, "golden.npz", bytes(1000))
    stored = sum(file.stat().st_size for file in compressed.iterdir())
    for path in (compressed, zipped(compressed)):
        monkeypatch.setattr(engines.style, "LARGEST", stored + len(tiny_model(2)))
        assert Style.load(path).files["golden.npz"] == bytes(1000)
        monkeypatch.setattr(engines.style, "LARGEST", stored + 100)
        with pytest.raises(StyleError, match="larger than"):
            Style.load(path)


@pytest.mark.parametrize("folder", ["", "tiny/"])
def test_a_zip(pack, folder):
    assert Style.load(zipped(pack, folder)) == Style.load(pack)


@pytest.mark.parametrize("name", bundled())
def test_every_bundled_style_is_whole(name):
    style = Style.load(name)
    assert style.name == name
    assert style.golden() is not None
    assert style.files["preview.jpg"]
    assert all(credit.artist and credit.title and credit.rights for credit in style.credits)


def test_an_unknown_name_lists_what_there_is(monkeypatch, pack):
    monkeypatch.setattr(engines.style, "BUNDLED", pack.parent)
    with pytest.raises(
        StyleError, match=r"no style 'tinny'; did you mean 'tiny'\? bundled: cold, tiny, warm;"
    ):
        Style.load("tinny")


def test_a_style_of_a_bundled_pack_is_found_by_its_name(monkeypatch, pack):
    monkeypatch.setattr(engines.style, "BUNDLED", pack.parent)
    another = pack.with_name("another")
    tiny_pack(another)
    assert Style.load(another) != Style.load(pack)
    for name, holder in (("cold", another), ("another/cold", another), ("tiny/cold", pack)):
        style = Style.load(name)
        assert dict(style.mix) == {"cold": 1.0}
        assert style == Style.load(holder)
    with pytest.raises(StyleError, match="no style 'tiny/colt'; did you mean 'tiny/cold'"):
        Style.load("tiny/colt")
    with pytest.raises(StyleError, match="no style '/cold'"):
        Style.load("/cold")
    assert dict(Style.load("tiny").mix) == {}


def test_no_such_precision(pack):
    with pytest.raises(StyleError, match="no float16 model in this pack; there is float32"):
        Style.load(pack).model("float16")


def test_layout_is_for_onnx_models(pack):
    with pytest.raises(StyleError, match=r"for \.onnx models"):
        engines.load_style(pack, layout="nchw")


def test_a_file_that_is_missing(pack):
    (pack / "model.onnx").unlink()
    with pytest.raises(StyleError, match=r"model\.onnx cannot be read"):
        Style.load(pack)


def test_a_file_that_was_altered(pack):
    content = bytearray((pack / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (pack / "model.onnx").write_bytes(content)
    with pytest.raises(StyleError, match=r"model\.onnx is damaged or was altered"):
        Style.load(pack)


def test_a_file_that_was_cut_short(pack):
    content = (pack / "model.onnx").read_bytes()
    (pack / "model.onnx").write_bytes(content[:100])
    with pytest.raises(StyleError, match="damaged"):
        Style.load(pack)


def test_a_zip_that_was_cut_short(pack):
    path = zipped(pack)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(StyleError, match=r"damaged \.zip"):
        Style.load(path)


def test_a_zip_with_a_damaged_member(pack):
    path = zipped(pack)
    content = bytearray(path.read_bytes())
    at = content.find(b"model.onnx") + 500
    content[at : at + 40] = bytes(40)
    path.write_bytes(content)
    with pytest.raises(StyleError, match=r"damaged"):
        Style.load(path)


def test_a_newer_format(pack):
    edit(pack, format=2)
    with pytest.raises(StyleError, match="has format 2, this fauve reads 1"):
        Style.load(pack)


@pytest.mark.parametrize(
    "name",
    ["../secret", "/etc/passwd", "a/../../secret", "..\\secret", "C:secret", "", "a\0b", "\ud800", "a\nb"],
)
def test_a_path_that_leads_out_of_the_pack(pack, name):
    (pack.parent / "secret").write_text("secret")
    edit(pack, files={name: "0" * 64})
    for path in (pack, zipped(pack)):
        with pytest.raises(StyleError, match="leads out of the pack"):
            Style.load(path)


def test_a_link_that_leads_out_of_the_pack(pack):
    shutil.move(pack / "model.onnx", pack.parent / "elsewhere")
    (pack / "model.onnx").symlink_to(pack.parent / "elsewhere")
    with pytest.raises(StyleError, match="leads out of the pack"):
        Style.load(pack)


def test_an_archive_made_to_fill_the_memory(pack, monkeypatch):
    put(pack, "golden.npz", zipped(pack).read_bytes())
    largest = 1000 + max(file.stat().st_size for file in pack.iterdir())
    monkeypatch.setattr(engines.style, "LARGEST", largest)
    for path in (pack, zipped(pack)):
        with pytest.raises(StyleError, match="larger than"):
            Style.load(path)


def test_an_archive_whose_table_lies_or_that_python_does_not_bound(pack):
    path = zipped(pack)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.write(pack / "style.json", "style.json")
    with pytest.raises(StyleError, match="otherwise than by deflate"):
        Style.load(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(pack / "style.json", "style.json")
        archive.writestr("model.onnx", bytes(50 << 20))
        archive.getinfo("model.onnx").file_size = 100
    tracemalloc.start()
    with pytest.raises(StyleError, match="damaged"):
        Style.load(path)
    assert tracemalloc.get_traced_memory()[1] < 10 << 20
    tracemalloc.stop()


def test_a_golden_pair_made_to_fill_the_memory(pack, monkeypatch):
    content = io.BytesIO()
    np.savez_compressed(content, image=np.zeros((1000, 1000, 3), np.uint8))
    put(pack, "golden.npz", content.getvalue())
    style = Style.load(pack)
    monkeypatch.setattr(engines.style, "LARGEST", 1 << 20)
    with pytest.raises(StyleError, match=r"golden\.npz is broken: it is larger than 1 MiB"):
        style.golden()


def test_a_folder_called_like_a_style_hides_none(pack, tmp_path, monkeypatch):
    (tmp_path / "home" / "cubism").mkdir(parents=True)
    (tmp_path / "home" / "orphism").write_text("not a pack")
    monkeypatch.chdir(tmp_path / "home")
    assert dict(Style.load("cubism").mix) == {"cubism": 1.0}
    assert dict(Style.load("orphism").mix) == {"orphism": 1.0}
    shutil.copytree(pack, "bauhaus")
    assert Style.load("bauhaus").name == "tiny", "a pack is meant by its path"


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_a_name_that_no_file_can_have(name):
    with pytest.raises(StyleError):
        Style.load(name)


@pytest.mark.parametrize("place", ["sparse", "function"])
def test_weights_in_another_file_anywhere(pack, place):
    model = onnx.load_model_from_string(tiny_model())
    tensor = onnx.TensorProto(dims=[1], data_type=onnx.TensorProto.FLOAT)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="secret.bin")
    if place == "sparse":
        model.graph.sparse_initializer.add(values=tensor, dims=[1])
    else:
        node = model.functions.add(name="f").node.add(op_type="Constant")
        node.attribute.add(name="value", type=onnx.AttributeProto.TENSOR, t=tensor)
    put(pack, "model.onnx", model.SerializeToString())
    with pytest.raises(StyleError, match=r"keeps weights in another file, 'secret\.bin'"):
        Style.load(pack)


def test_weights_in_another_file(pack):
    model = onnx.load_model_from_string(tiny_model())
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    put(pack, "model.onnx", model.SerializeToString())
    with pytest.raises(StyleError, match=r"keeps weights in another file, '../../etc/passwd'"):
        Style.load(pack)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x09" + bytes(50)])
def test_a_model_that_is_none(pack, content):
    put(pack, "model.onnx", content)
    with pytest.raises(StyleError, match="ONNX model"):
        Style.load(pack)


def test_a_model_with_other_inputs(pack):
    model = onnx.load_model_from_string(tiny_model())
    model.graph.input[0].name = "picture"
    put(pack, "model.onnx", model.SerializeToString())
    with pytest.raises(StyleError, match="must take image, mix and strength"):
        Style.load(pack)


@pytest.mark.parametrize("name", ["mix", "strength", "stylized"])
def test_a_model_with_an_input_for_an_output_or_the_other_way_round(pack, name):
    model = onnx.load_model_from_string(tiny_model())
    sides = [model.graph.input, model.graph.output]
    taken, given = sides if name != "stylized" else sides[::-1]
    value = next(value for value in taken if value.name == name)
    given.append(value)
    taken.remove(value)
    put(pack, "model.onnx", model.SerializeToString())
    with pytest.raises(StyleError, match="must take image, mix and strength and give stylized"):
        Style.load(pack)


def test_an_origin_is_of_whole_numbers_and_of_all_models_or_none(pack):
    assert not Style.load(pack).carried
    put(pack, "model.onnx", tiny_model(carried=True))
    assert Style.load(pack).carried
    model = onnx.load_model_from_string(tiny_model(carried=True))
    origin = next(value for value in model.graph.input if value.name == "origin")
    origin.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    put(pack, "model.onnx", model.SerializeToString())
    with pytest.raises(StyleError, match="not a style model"):
        Style.load(pack)


def test_models_that_do_not_agree_about_the_origin(tmp_path):
    with pytest.raises(StyleError, match="some of its models take an origin, and others do not"):
        write_pack(
            tmp_path / "two",
            name="two",
            title="Two",
            credits=[Credit("warm", "A", "B", 1900), Credit("cold", "A", "B", 1900)],
            files={"model.onnx": tiny_model(carried=True), "model.fp16.onnx": tiny_model()},
            models={"float32": "model.onnx", "float16": "model.fp16.onnx"},
            multiple=8,
            native_height=96,
            license="CC0-1.0",
        )


def test_a_model_with_another_number_of_styles(pack):
    put(pack, "model.onnx", tiny_model(3))
    with pytest.raises(StyleError, match=r"mixes 3 styles, style\.json lists 2"):
        Style.load(pack)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"multiple": 0}, "out of range"),
        ({"multiple": "8"}, "'multiple'"),
        ({"multiple": -1}, "out of range"),
        ({"multiple": 1_000_000}, "out of range"),
        ({"models": {"float32": "model.onnx", "float16": [1]}}, "among the files"),
        ({"styles": [{"name": [1], "title": "A", "artist": "B", "year": 1}]}, "names of their own"),
        ({"native_height": True}, "'native_height'"),
        ({"models": {"float16": "model.onnx"}}, "float32"),
        ({"models": {"float32": "other.onnx"}}, "float32"),
        ({"styles": []}, "styles"),
        ({"styles": [{"name": "a"}]}, "malformed"),
        ({"styles": ["a"]}, "malformed"),
        ({"styles": [{"name": "a", "title": "", "artist": "", "year": 1, "others": 5}]}, "malformed"),
        ({"styles": [{"name": "a", "title": "", "artist": "", "year": 1, "others": "b"}]}, "malformed"),
        ({"styles": "warm"}, "'styles'"),
        ({"files": ["model.onnx"]}, "files"),
        ({"name": None}, "'name'"),
    ],
)
def test_a_manifest_with_nonsense(pack, changes, message):
    edit(pack, **changes)
    with pytest.raises(StyleError, match=message):
        Style.load(pack)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000])
def test_a_manifest_that_is_none(pack, text):
    (pack / "style.json").write_text(text)
    with pytest.raises(StyleError, match=r"style\.json"):
        Style.load(pack)


def saved(**arrays):
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


PICTURE, MIX, ONE = np.zeros((8, 8, 3), np.uint8), np.float32([1, 0]), np.ones(1, np.float32)


@pytest.mark.parametrize(
    "content",
    [
        b"PK",
        saved(image=PICTURE, stylized=PICTURE, mix=np.zeros((2, 2)), strength=ONE),
        saved(image=PICTURE[..., :1], stylized=PICTURE[..., :1], mix=MIX, strength=ONE),
        saved(image=PICTURE[:0], stylized=PICTURE[:0], mix=MIX, strength=ONE),
        saved(image=PICTURE, stylized=PICTURE.astype(np.float32), mix=MIX, strength=ONE),
        saved(image=PICTURE, stylized=PICTURE[1:], mix=MIX, strength=ONE),
    ],
)
def test_a_golden_pair_that_is_broken(pack, content):
    put(pack, "golden.npz", content)
    with pytest.raises(StyleError, match=r"golden\.npz (is broken|does not hold)"):
        Style.load(pack).golden()


def write(folder, force=False, model=None):
    return write_pack(
        folder,
        name="one",
        title="One",
        credits=[Credit("one", "A Painting", "Nobody", 1900)],
        files={"model.onnx": model or tiny_model(1)},
        models={"float32": "model.onnx"},
        multiple=8,
        native_height=480,
        license="CC0-1.0",
        force=force,
    )


def test_a_pack_is_written_whole_or_not_at_all(tmp_path):
    with pytest.raises(StyleError):
        write(tmp_path / "pack", model=b"nonsense")
    assert list(tmp_path.iterdir()) == []
    write(tmp_path / "pack")
    assert sorted(path.name for path in (tmp_path / "pack").iterdir()) == ["model.onnx.gz", "style.json"]


def test_a_pack_that_is_there_stays_unless_forced(tmp_path):
    write(tmp_path / "pack")
    before = (tmp_path / "pack" / "model.onnx.gz").read_bytes()
    with pytest.raises(StyleError, match="there already"):
        write(tmp_path / "pack", model=tiny_model(1, gain=0.5))
    assert (tmp_path / "pack" / "model.onnx.gz").read_bytes() == before
    write(tmp_path / "pack", model=tiny_model(1, gain=0.5), force=True)
    assert (tmp_path / "pack" / "model.onnx.gz").read_bytes() != before
    assert Style.load(tmp_path / "pack").multiple == 8
    assert [path.name for path in tmp_path.iterdir()] == ["pack"]


def test_a_pack_that_cannot_be_replaced_stays(tmp_path, monkeypatch):
    write(tmp_path / "pack")
    rename = Path.rename

    def full(self, target):
        if self.name == "new":
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(StyleError, match="cannot be written: No space left"):
        write(tmp_path / "pack", model=tiny_model(1, gain=0.5), force=True)
    assert Style.load(tmp_path / "pack").model() == tiny_model(1)
    assert [path.name for path in tmp_path.iterdir()] == ["pack"]


@pytest.mark.parametrize("force", [False, True])
def test_what_is_no_pack_is_never_replaced(tmp_path, monkeypatch, force):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint.pt").write_bytes(b"hours")
    monkeypatch.chdir(tmp_path / "run")
    for folder in (tmp_path / "run", Path("."), tmp_path / "run" / "checkpoint.pt"):
        with pytest.raises(StyleError, match="no style pack" if force else "there already"):
            write(folder, force=force)
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == b"hours"


def test_where_nothing_can_be_written_it_is_one_line(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StyleError, match="cannot be written"):
        write(tmp_path / "file" / "pack")


def test_a_style_without_a_name_is_refused():
    with pytest.raises(StyleError, match="has no name; `fauve styles` lists"):
        engines.load_style("")
