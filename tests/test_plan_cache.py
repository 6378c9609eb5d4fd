"""Plans are found again by what they are good for, and by nothing else."""

import dataclasses
import json
import multiprocessing
import time

import pytest

from engines.errors import EngineBuildError
from engines.plan_cache import Plan, PlanCache, SizeRange, Target

TARGET = Target("ab" * 32, "float16", "11.4.0", "NVIDIA Test GPU", "9.0", "level 3")


def plan(size=(1280, 720), target=TARGET, multiple=8):
    return Plan(target, SizeRange.around(size, multiple), "live", 63.5)


@pytest.mark.parametrize(
    ("size", "multiple", "expected"),
    [
        ((1280, 720), 8, SizeRange((64, 64), (1280, 720), (1280, 1280))),
        ((1920, 1080), 8, SizeRange((64, 64), (1920, 1080), (1920, 1920))),
        ((1080, 1920), 8, SizeRange((64, 64), (1080, 1920), (1920, 1920))),
        ((853, 479), 8, SizeRange((64, 64), (856, 480), (1280, 1280))),
        ((20, 7), 8, SizeRange((8, 8), (24, 8), (1280, 1280))),
        ((600, 400), 96, SizeRange((96, 96), (672, 480), (1344, 1344))),
    ],
)
def test_a_plan_is_for_all_sizes_up_to_its_longer_side(size, multiple, expected):
    assert SizeRange.around(size, multiple) == expected


def test_a_plan_has_room_for_a_scene_that_moves():
    assert SizeRange.around((1280, 720), 16, carried=True).largest == (1296, 1296)
    assert SizeRange.around((1920, 1080), 16, carried=True).largest == (1936, 1936)


def test_what_is_in_the_range():
    sizes = SizeRange.around((1920, 1080), 8)
    inside = [(64, 64), (1920, 1080), (1080, 1920), (1920, 1920), (640, 360)]
    outside = [(56, 64), (1928, 1080), (1080, 1928)]
    assert [size in sizes for size in inside + outside] == [True] * 5 + [False] * 3
    assert (1920, 1080) not in SizeRange.only((512, 512))
    assert str(sizes) == "64x64 to 1920x1920"


def test_a_plan_is_found_again_with_what_it_was(tmp_path):
    cache = PlanCache(tmp_path / "plans")
    assert cache.plans() == []
    assert cache.clean() == 0
    cache.write(plan(), b"compiled")
    found = PlanCache(tmp_path / "plans").find(TARGET, (640, 360))
    assert found == plan()
    assert (cache.read(found), cache.size(found)) == (b"compiled", 8)
    sidecar = json.loads((cache.folder / f"{found.digest}.json").read_text("utf-8"))
    assert sidecar["style"] == "live"
    assert sidecar["target"]["gpu"] == "NVIDIA Test GPU"
    assert sidecar["sizes"] == {"smallest": [64, 64], "best": [1280, 720], "largest": [1280, 1280]}
    assert sorted(path.suffix for path in cache.folder.iterdir()) == [".json", ".plan"]


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Target)])
def test_any_difference_of_the_target_is_another_plan(tmp_path, field):
    cache = PlanCache(tmp_path)
    cache.write(plan(), b"compiled")
    other = dataclasses.replace(TARGET, **{field: "other"})
    assert cache.find(other, (640, 360)) is None
    assert plan(target=other).digest != plan().digest


def test_the_nearest_of_those_that_cover_the_size(tmp_path):
    cache = PlanCache(tmp_path)
    small, large = plan((640, 360)), plan((3840, 2160))
    assert small.digest != large.digest
    for each in (large, small):
        cache.write(each, b"")
    assert cache.plans() == [small, large]
    assert cache.find(TARGET, (720, 400)) == small
    assert cache.find(TARGET, (3000, 2000)) == large
    assert cache.find(TARGET, (1920, 1088)) == large
    assert cache.find(TARGET, (4096, 2160)) is None
    assert cache.find(TARGET) in (small, large)


def test_what_is_no_plan_is_passed_over(tmp_path):
    cache = PlanCache(tmp_path)
    cache.write(plan(), b"compiled")
    sidecar = json.loads((tmp_path / f"{plan().digest}.json").read_text("utf-8"))
    sidecar["sizes"]["largest"] = [4000, 4000]
    (tmp_path / f"{plan().digest}.json").write_text(json.dumps(sidecar))
    (tmp_path / "x.json").write_text("{")
    (tmp_path / "y.json").write_text("[]")
    (tmp_path / "z.json").write_text('{"sizes": {"best": 1}}')
    assert cache.plans() == []


def test_one_that_somebody_removed_by_half(tmp_path):
    cache = PlanCache(tmp_path)
    cache.write(plan(), b"compiled")
    (tmp_path / f"{plan().digest}.plan").unlink()
    assert cache.read(plan()) is None
    assert cache.size(plan()) == 0
    cache.write(plan(), b"compiled")
    assert cache.read(plan()) == b"compiled"


def test_timings_are_of_a_version_and_a_gpu(tmp_path):
    cache = PlanCache(tmp_path)
    assert cache.timings(TARGET) == b""
    cache.write_timings(TARGET, b"measured")
    assert cache.timings(dataclasses.replace(TARGET, model="other", precision="float32")) == b"measured"
    assert cache.timings(dataclasses.replace(TARGET, gpu="other")) == b""
    assert cache.timings(dataclasses.replace(TARGET, tensorrt="12")) == b""


def test_where_nothing_can_be_kept_it_is_one_line(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    cache = PlanCache(tmp_path / "file" / "plans")
    with pytest.raises(EngineBuildError, match="plans cannot be kept there: Not a directory"):
        cache.write(plan(), b"compiled")
    with pytest.raises(EngineBuildError, match="plans cannot be kept there"), cache.building():
        pass


def test_clean_leaves_nothing(tmp_path):
    cache = PlanCache(tmp_path)
    cache.write(plan(), bytes(1000))
    cache.write_timings(TARGET, bytes(10))
    (tmp_path / ".broken.plan.x1").write_bytes(bytes(5))
    freed = cache.clean()
    assert freed > 1015
    assert [path.name for path in tmp_path.iterdir()] == ["building.lock"]


def test_clean_leaves_a_folder_and_takes_a_broken_link(tmp_path):
    cache = PlanCache(tmp_path)
    (tmp_path / "a-folder").mkdir()
    (tmp_path / "gone.plan").symlink_to(tmp_path / "nowhere")
    cache.write(plan(), bytes(1000))
    cache.clean()
    assert {path.name for path in tmp_path.iterdir()} == {"a-folder", "building.lock"}


def _build(folder, order):
    with PlanCache(folder).building():
        order.append("begins")
        time.sleep(0.3)
        order.append("ends")


def test_processes_build_one_after_the_other(tmp_path):
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        order = manager.list()
        builders = [context.Process(target=_build, args=(tmp_path, order)) for _ in range(2)]
        for builder in builders:
            builder.start()
        for builder in builders:
            builder.join()
        assert list(order) == ["begins", "ends"] * 2
