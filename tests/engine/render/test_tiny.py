import numpy as np
import pytest

from engine.avatar import AvatarEngine
from engine.backends import BATCH, Graph, GraphSpec, load_backend
from engine.config import EngineConfig
from engine.enroll import Identity
from engine.face import arkit
from engine.face.image_file import decode_image
from engine.face.topology import INNER_LOWER_LIP, INNER_UPPER_LIP, OUTER_LOWER_LIP, OUTER_UPPER_LIP
from engine.motion.retarget import FaceBasis, retarget
from engine.render.base import FrameCondition, Portrait
from engine.render.composite_maps import GRID_X, GRID_Y
from engine.render.compositing import Composite, Compositor, Layers
from engine.render.holds import whole_picture
from engine.render.lab import LUMA, to_lab
from engine.render.specs import CARRY, COMPOSITE, MOVE, WARP
from engine.render.tiny import TinyRenderer
from server.settings import BUNDLED_PORTRAIT

LEVEL = np.eye(2, 3, dtype=np.float32)  # a head that lies as in the portrait


def load(spec: GraphSpec) -> Graph:
    backend = load_backend("openvino", threads=2)
    return backend.load(spec, EngineConfig().weights / f"{spec.name}.onnx")


@pytest.fixture(scope="module")
def compositor() -> Compositor:
    return Compositor(load, np.asarray)


def compose(
    compositor: Compositor,
    place: Composite,
    flow: np.ndarray,
    patch: np.ndarray,
    blinking: np.ndarray | None = None,
    head: np.ndarray = LEVEL,
) -> np.ndarray:
    [frame] = compositor.compose([Layers(place, flow, patch, head, blinking)])
    return frame


def portrait(height: int = 300, width: int = 260) -> np.ndarray:
    """A picture with detail everywhere."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    channels = [127 + 90 * np.sin(x / a + y / b) for a, b in ((9, 31), (17, 13), (41, 7))]
    return np.stack(channels, -1).astype(np.uint8)


def composite(compositor: Compositor, rgb: np.ndarray, side: float = 90.0) -> Composite:
    centre = np.array([rgb.shape[1], rgb.shape[0]]) / 2
    to_crop = np.c_[np.eye(2) / side, 0.5 - centre / side].astype(np.float32)
    return compositor.prepare(Portrait(rgb, np.zeros((478, 2), np.float32), to_crop))


def nothing(graph: str, tensor: str) -> np.ndarray:
    spec = {s.name: s for s in (WARP, MOVE, COMPOSITE)}[graph]
    shape = next(t.shape for t in spec.inputs if t.name == tensor)
    return np.zeros([1 if n == BATCH else int(n) for n in shape], np.float32)


def trusted() -> np.ndarray:
    """A painted crop that says: believe the warp."""
    patch = nothing("composite", "patch")
    patch[:, 3] = 1
    return patch


def test_a_portrait_that_does_not_move_is_untouched(compositor: Compositor) -> None:
    rgb = portrait()
    still = compose(compositor, composite(compositor, rgb), nothing("move", "flow"), trusted())
    assert np.abs(still.astype(int) - rgb).max() <= 1


def test_nothing_outside_the_reach_of_the_head_changes(compositor: Compositor) -> None:
    rgb = portrait(900, 800)
    place = composite(compositor, rgb, side=60)
    flow = nothing("move", "flow") + 0.5
    moved = compose(compositor, place, flow, trusted())
    outside = np.ones(rgb.shape[:2], bool)
    outside[place.maps.head.box] = False
    assert outside.any()
    np.testing.assert_array_equal(moved[outside], rgb[outside])
    assert (moved[place.maps.head.box] != rgb[place.maps.head.box]).any()


def test_flow_is_in_crop_units(compositor: Compositor) -> None:
    rgb, side = portrait(), 90.0
    flow = nothing("move", "flow")
    flow[:, 0] = 6 / side  # read six pixels to the right
    moved = compose(compositor, composite(compositor, rgb, side), flow, trusted())
    np.testing.assert_allclose(
        moved[100:200, 80:180].astype(int), rgb[100:200, 86:186].astype(int), atol=2
    )


@pytest.mark.parametrize("roll", [-0.5, 0.0, 1.0])
def test_a_head_that_is_held_askew_goes_where_its_landmarks_go(
    compositor: Compositor, astronaut: Identity, roll: float
) -> None:
    rgb, side, centre = portrait(), 90.0, np.array([130, 150])
    turn = np.array([[np.cos(roll), np.sin(roll)], [-np.sin(roll), np.cos(roll)]]) / side
    to_crop = np.c_[turn, 0.5 - turn @ centre].astype(np.float32)
    place = compositor.prepare(Portrait(rgb, np.zeros((478, 2), np.float32), to_crop))
    face = astronaut.face
    feeds = {"crop": face.crop, "latents": face.kept["latents"], "reference_maps": face.lines}
    aside = (face.source + turn @ np.array([6, 2])).astype(np.float32)
    feeds |= {"source": face.source, "level": face.source, **place.flow}
    flow = load(WARP)(**feeds, target=aside)["flow"]
    moved = compose(compositor, place, flow, trusted())[140:160, 120:140].astype(int)
    np.testing.assert_allclose(moved, rgb[138:158, 114:134].astype(int), atol=6)


def test_paint_is_laid_inside_the_crop_only_and_fades_at_its_border(
    compositor: Compositor,
) -> None:
    rgb, side = portrait(), 90.0
    white = nothing("composite", "patch")
    white[:, :3] = 1  # trust nothing, paint white
    laid = compose(compositor, composite(compositor, rgb, side), nothing("move", "flow"), white)
    middle = laid[140:160, 120:140]
    assert middle.min() >= 254
    change = np.abs(laid.astype(int) - rgb).max(-1)
    y, x = np.nonzero(change > 1)
    assert abs(y - 149.5).max() <= side / 2 + 1
    assert abs(x - 129.5).max() <= side / 2 + 1
    edge = change[150, 130 - int(side / 2) : 130 - int(side / 2) + 2]
    assert edge.max() < 40, "the crop must fade in, not begin"


@pytest.mark.parametrize("tilt", [0.0, 0.2])
def test_paint_goes_where_the_head_goes(compositor: Compositor, tilt: float) -> None:
    rgb, side = portrait(), 90.0
    patch = trusted()
    patch[:, :, 96:112, 56:72] = np.array([1, 1, 1, 0])[:, None, None]  # white, under the middle
    c, s = np.cos(tilt), np.sin(tilt)
    turn, shift = np.array([[c, -s], [s, c]]), np.array([0.2, -0.1])
    head = np.c_[turn, np.array([0.5, 0.5]) - turn @ [0.5, 0.5] + shift].astype(np.float32)
    place, still = composite(compositor, rgb, side), nothing("move", "flow")
    laid = compose(compositor, place, still, patch, head=head)
    white = np.argwhere(np.abs(laid.astype(int) - rgb).max(-1) > 30)
    x, y = side * (turn @ [0, 104 / 128 - 0.5] + shift) + [130, 150]
    np.testing.assert_allclose(white.mean(0) + 0.5, [y, x], atol=1.0)
    assert abs(len(white) - (16 / 128 * side) ** 2) < 40


def test_the_mouth_is_painted_alike_wherever_the_head_lies(astronaut: Identity) -> None:
    renderer = TinyRenderer(load)
    cache, noise = renderer.cold(astronaut.face), renderer.noise(0)
    basis, lids = FaceBasis.load(EngineConfig().weights / "basis.npz"), np.zeros(2, np.float32)
    spoken = np.zeros(arkit.COUNT, np.float32)
    spoken[arkit.index("jawOpen")] = 0.3
    poses = np.array([[0, 0, 0, 0, 0, 0], [0, 0, 0.12, 0.1, -0.1, 0.02]], np.float32)
    patches = []
    for pose in poses:
        target = retarget(astronaut.neutral, basis, spoken, pose)
        condition = FrameCondition(target, lids, pose, noise)
        [(_, after)] = renderer.draw([(astronaut.face, cache, condition)])
        patches.append(np.asarray(after.patch))
    assert np.abs(patches[0]).max() > 0.5
    np.testing.assert_allclose(patches[1], patches[0], atol=0.02)


def test_a_blinking_portrait_is_moved_in_place_of_the_open_one(compositor: Compositor) -> None:
    rgb = portrait()
    place = composite(compositor, rgb)
    blinking = place.person.copy()
    blinking[:, :3, 100:110, 100:140] = 0
    shown = compose(compositor, place, nothing("move", "flow"), trusted(), blinking)
    assert shown[101:109, 101:139].max() <= 1
    shown[100:110, 100:140] = rgb[100:110, 100:140]
    assert np.abs(shown.astype(int) - rgb).max() <= 1


def test_a_carried_crop_follows_the_lips() -> None:

    backend = load_backend("openvino", threads=1)
    carry = backend.load(CARRY, EngineConfig().weights / "carry.onnx")
    before = np.random.default_rng(0).uniform(0, 1, (1, 478, 2)).astype(np.float32)
    patch = np.zeros((1, 4, 128, 128), np.float32)
    patch[:, 0, 60:68, 40:48] = 1
    held = whole_picture()
    still = {"patch": patch, "source": before, "before": before, "target": before}
    still |= {"turn": np.eye(2, dtype=np.float32)[None], "anchors": held.anchors}
    still |= {"shares": held.shares}
    np.testing.assert_allclose(carry(**still, level=before)["carried"], patch, atol=1e-3)
    shifted = before + np.array([10 / 128, 0], np.float32)  # the face goes ten pixels to the right
    moved = carry(**still, level=shifted)["carried"][0, 0]
    row = moved[60:68].sum(0)
    assert float((row * np.arange(128)).sum() / row.sum()) == pytest.approx(43.5 + 10, abs=0.7)


def test_a_frame_between_needs_a_painted_one(astronaut: Identity) -> None:
    renderer = TinyRenderer(load)
    still = FrameCondition(
        np.zeros((478, 2), np.float32), np.zeros(2, np.float32), np.zeros(6, np.float32), None
    )
    with pytest.raises(ValueError, match="painted one before"):
        renderer.draw_between([(astronaut.face, renderer.cold(astronaut.face), still)])


@pytest.fixture(scope="module")
def astronaut() -> Identity:
    engine = AvatarEngine.load(EngineConfig())
    return engine.enroll(decode_image(BUNDLED_PORTRAIT.read_bytes()))


def carried_by(target: np.ndarray, identity: Identity, height: float) -> float:
    """How far the portrait goes down at `height` under the nose, in crop units."""
    warp = load_backend("openvino", threads=2).load(WARP, EngineConfig().weights / "warp.onnx")
    face = identity.face
    kept = {"crop": face.crop, "latents": face.kept["latents"], "reference_maps": face.lines}
    kept |= {"source": face.source, **face.composite.flow}
    flows = [
        warp(**kept, level=points, target=points)["flow"]
        for points in (identity.neutral[None], target[None].astype(np.float32))
    ]
    row = int(np.abs(GRID_Y - height).argmin())
    column = int(np.abs(GRID_X - identity.neutral[1, 0]).argmin())
    return float(flows[0][0, 1, row, column] - flows[1][0, 1, row, column])


def test_an_opening_jaw_leaves_the_collar_where_it_is(astronaut: Identity) -> None:
    basis = FaceBasis.load(EngineConfig().weights / "basis.npz")
    open_ = np.zeros(arkit.COUNT, np.float32)
    open_[arkit.index("jawOpen")] = 0.4
    target = retarget(astronaut.neutral, basis, open_, np.zeros(6, np.float32))
    chin = astronaut.neutral[152, 1]
    moved = carried_by(target, astronaut, chin)
    assert moved > 0.02
    for below in (0.3, 0.45, 0.6):
        assert (
            abs(carried_by(target, astronaut, chin + below)) < 0.1 * moved
        )  # all of it, when only the chin pulled


def test_the_neck_goes_with_the_head_and_the_chest_less(astronaut: Identity) -> None:
    target = astronaut.neutral + np.array([0, 0.05], np.float32)
    chin = astronaut.neutral[152, 1]
    neck, chest = (carried_by(target, astronaut, chin + below) for below in (0.14, 0.5))
    assert 0.03 < neck < 0.052
    assert chest < 0.4 * neck


def test_a_smile_that_closes_keeps_its_lips(astronaut: Identity) -> None:
    source = np.asarray(astronaut.face.source)[0]
    for outer, inner in (
        (OUTER_UPPER_LIP, INNER_UPPER_LIP),
        (OUTER_LOWER_LIP, INNER_LOWER_LIP),
    ):
        was, now = (
            np.linalg.norm(face[list(outer[3:8])] - face[list(inner[3:8])], axis=1).mean()
            for face in (source, astronaut.neutral)
        )
        assert now > 0.7 * was


def test_a_grey_portrait_talks_in_grey() -> None:
    engine = AvatarEngine.load(EngineConfig())
    rgb = decode_image(BUNDLED_PORTRAIT.read_bytes()).astype(np.float32) @ LUMA
    identity = engine.enroll(np.repeat(rgb[..., None], 3, -1).astype(np.uint8))
    renderer = TinyRenderer(load)
    basis = FaceBasis.load(EngineConfig().weights / "basis.npz")
    said = np.zeros(arkit.COUNT, np.float32)
    said[arkit.index("jawOpen")] = 0.3
    target = retarget(identity.neutral, basis, said, np.zeros(6, np.float32))
    condition = FrameCondition(
        target, np.full(2, 0.5, np.float32), np.zeros(6, np.float32), renderer.noise(0)
    )
    [(frame, _)] = renderer.draw([(identity.face, renderer.cold(identity.face), condition)])
    chroma = np.hypot(*to_lab(frame / np.float32(255))[..., 1:].transpose(2, 0, 1))
    assert (chroma > 6).mean() <= 0.001
