import numpy as np
import pytest

from engine.errors import PromptRefused
from engine.face import arkit
from engine.motion.expression import (
    ALIASES,
    EASE_FRAMES,
    MAX_PENDING,
    NEUTRAL,
    WORDS,
    ExpressionState,
    Prompt,
    parse,
    refuse_words,
)

JAW = arkit.index("jawOpen")
SMILE = arkit.index("mouthSmileLeft")


def prompt(text: str) -> Prompt:
    return Prompt(parse(text)[0])


def run(state: ExpressionState, frames: range) -> np.ndarray:
    return np.stack([state.step(frame, 0.0, 0.0) for frame in frames])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("smile", {"smile": 1.0}),
        ("smile 0.6, brows up", {"smile": 0.6, "brows up": 1.0}),
        ("Sad; eyes closed", {"sad": 1.0, "eyes closed": 1.0}),
        ("smiling 60% and raised eyebrows", {"smile": 0.6, "brows up": 1.0}),
        ("slightly angry with closed eyes", {"angry": 0.4, "eyes closed": 1.0}),
        ("very happy", {"smile": 1.0}),
        ("smile: .5", {"smile": 0.5}),
        ("wide eyes", {"eyes wide": 1.0}),
        ("neutral, wink", {"wink left": 1.0}),
        ("  ", {}),
        ("smile 1, smile 0.2", {"smile": 0.2}),
    ],
)
def test_prompts_are_read(text: str, words: dict[str, float]) -> None:
    expression, others = parse(text)
    assert dict(expression.words) == words
    assert others == ()


def test_the_shortest_form_reads_back_the_same() -> None:
    expression, _ = parse("slightly sad, eyes CLOSED and raised brows 30 %")
    again, others = parse(str(expression))
    assert not others
    assert again.words == expression.words
    np.testing.assert_array_equal(again.offsets, expression.offsets)
    assert str(NEUTRAL) == "neutral"
    assert parse("neutral")[0].words == ()


def test_strength_scales_and_words_add() -> None:
    half, whole = parse("smile 0.5")[0].offsets, parse("smile")[0].offsets
    np.testing.assert_allclose(half * 2, whole)
    both = parse("smile, brows up")[0].offsets
    np.testing.assert_allclose(both, whole + parse("brows up")[0].offsets)


def test_every_word_moves_the_face_its_own_way() -> None:
    rows = {word: parse(word)[0].offsets for word in WORDS if word != "neutral"}
    assert all(row.any() for row in rows.values())
    assert len({row.tobytes() for row in rows.values()}) == len(rows)
    assert all((row >= 0).all() for row in rows.values())
    assert set(ALIASES.values()) == set(WORDS)


def test_what_it_cannot_do_is_said_in_words() -> None:
    expression, others = parse("older, smiling, pencil sketch")
    assert dict(expression.words) == {"smile": 1.0}
    with pytest.raises(PromptRefused) as refusal:
        refuse_words(others)
    said = str(refusal.value)
    assert "age ('older')" in said
    assert "style ('pencil sketch')" in said
    assert "--profile sd15" in said
    assert "brows up" in said
    refuse_words(())


@pytest.mark.parametrize(
    ("text", "said"),
    [("smyle", "did you mean 'smile'"), ("on the beach", "background"), ("xyzzy", "show 'xyzzy'")],
)
def test_an_unknown_word_gets_a_hint(text: str, said: str) -> None:
    with pytest.raises(PromptRefused, match=said):
        refuse_words(parse(text)[1])


def test_strengths_and_lengths_have_limits() -> None:
    with pytest.raises(PromptRefused, match="between 0 and 1"):
        parse("smile 1.5")
    with pytest.raises(PromptRefused, match="400 at most"):
        parse("smile, " * 100)


def test_a_change_eases_in_and_stays() -> None:
    state = ExpressionState.start()
    state.change(prompt("smile"), 5, 0)
    shown = run(state, range(5 + EASE_FRAMES + 5))[:, SMILE]
    assert not shown[:5].any()
    assert (np.diff(shown[4 : 5 + EASE_FRAMES]) > 0).all()
    assert np.diff(shown).max() < 0.25  # no jump
    assert (shown[5 + EASE_FRAMES - 1 :] == 1).all()


def test_the_first_frame_is_there_at_once() -> None:
    state = ExpressionState.start()
    state.change(prompt("smile"), 0, 0)
    assert (run(state, range(3))[:, SMILE] == 1).all()


def test_a_change_in_the_middle_of_another_goes_on_from_where_it_is() -> None:
    state = ExpressionState.start()
    state.change(prompt("smile"), 2, 0)
    state.change(prompt("neutral"), 6, 0)
    shown = run(state, range(20))[:, SMILE]
    assert shown.argmax() == 5
    assert 0.2 < shown[5] < 1
    assert np.abs(np.diff(shown)).max() < 0.25
    assert shown[-1] == 0


def test_when_a_change_is_told_does_not_matter() -> None:
    early, late = ExpressionState.start(), ExpressionState.start()
    early.change(prompt("sad"), 7, 0)
    a = run(early, range(20))
    b = [run(late, range(7))]
    late.change(prompt("sad"), 7, 7)
    b.append(run(late, range(7, 20)))
    np.testing.assert_array_equal(a, np.concatenate(b))


def test_a_change_for_a_drawn_frame_is_refused() -> None:
    state = ExpressionState.start()
    with pytest.raises(ValueError, match="too late"):
        state.change(prompt("sad"), 3, 4)
    state.change(prompt("sad"), 9, 4)
    with pytest.raises(ValueError, match="too late"):
        state.change(prompt("smile"), 8, 4)


def test_the_last_change_of_a_frame_counts_and_few_may_wait() -> None:
    state = ExpressionState.start()
    for _ in range(3 * MAX_PENDING):
        state.change(prompt("smile"), 4, 0)
    state.change(prompt("sad"), 4, 0)
    assert not run(state, range(20))[:, SMILE].any()
    for frame in range(100, 100 + MAX_PENDING):
        state.change(prompt("smile"), frame, 20)
    with pytest.raises(ValueError, match="already wait"):
        state.change(prompt("smile"), 200, 20)


def test_the_jaw_of_an_expression_rests_while_the_portrait_speaks() -> None:
    state = ExpressionState.start()
    state.change(prompt("surprised"), 0, 0)
    assert state.step(0, 0.0, 0.0)[JAW] > 0.2
    assert state.step(1, 0.0, 0.2)[JAW] == 0  # lips pressed
    assert state.step(2, 0.5, 0.0)[JAW] > 0
    assert state.step(3, 0.5, 0.0)[JAW] == 0
    opens = [state.step(4 + i, 0.0, 0.0)[JAW] for i in range(20)]
    assert opens[0] < 0.05
    assert opens[-1] > 0.2
    assert NEUTRAL.offsets[JAW] == 0  # shared, so never written to
