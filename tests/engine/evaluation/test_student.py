"""When a student of few steps counts as one."""

import pytest

pytest.importorskip("torch")

from engine.evaluation.student import Errors, verdict


@pytest.mark.parametrize(
    ("student", "few", "one"),
    [
        (Errors(0.104, 0.0208), Errors(0.20, 0.040), True),
        (Errors(0.106, 0.0208), Errors(0.20, 0.040), False),  # 1.06 times the teacher
        (Errors(0.104, 0.0208), Errors(0.13, 0.040), False),  # only a fifth below it in two steps
        (Errors(0.104, 0.0208), Errors(0.20, 0.025), False),  # the mouth is
    ],
)
def test_a_student_is_near_its_teacher_and_far_better_in_its_steps(
    student: Errors, few: Errors, one: bool
) -> None:
    said = verdict({"teacher": Errors(0.1, 0.02), "student": student, "teacher_few": few})
    assert said["is_a_student"] is one
    assert said["mouth_to_teacher"] == pytest.approx(1.04)
