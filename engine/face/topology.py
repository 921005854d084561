"""The 478-point face topology (MediaPipe's numbering): which points are which, as plain tuples."""

from __future__ import annotations

POINTS = 478

OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109, 10,
)  # fmt: skip
JAW = OVAL[8:29]  # from one ear over the chin to the other

LOWER_JAW = OVAL[11:26]  # from one angle of the jaw to the other
UPPER_OVAL = (*OVAL[26:], *OVAL[:11])  # from one ear over the hairline to the other
# Crop units beyond it where points of hair and ears lie, and how much less than the face they turn with the head, by the
# hairline's own measure: they lie as much farther back.
SCALP = ((0.12, 1.8), (0.3, 3.0), (0.6, 4.0))
# Crop units beyond the jaw where points of the neck lie, and their share in the head's motion.
NECK = ((0.14, 0.9), (0.3, 0.5), (0.5, 0.2))

# Lip contours from the right corner of the mouth (61, 78) to the left (291, 308).
OUTER_UPPER_LIP = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291)
OUTER_LOWER_LIP = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291)
INNER_UPPER_LIP = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)
INNER_LOWER_LIP = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)

# Rings between the outer and the inner contour, upper half then lower half, outside to inside.
UPPER_RINGS = (
    (76, 184, 74, 73, 72, 11, 302, 303, 304, 408, 306),
    (62, 183, 42, 41, 38, 12, 268, 271, 272, 407, 292),
)
LOWER_RINGS = (
    (76, 77, 90, 180, 85, 16, 315, 404, 320, 307, 306),
    (62, 96, 89, 179, 86, 15, 316, 403, 319, 325, 292),
)
RIGHT_EYE = (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7, 33)
LEFT_EYE = (263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249, 263)
# Lid edges from corner to corner, upper and lower.
RIGHT_LIDS = (
    (33, 246, 161, 160, 159, 158, 157, 173, 133),
    (33, 7, 163, 144, 145, 153, 154, 155, 133),
)
LEFT_LIDS = (
    (362, 398, 384, 385, 386, 387, 388, 466, 263),
    (362, 382, 381, 380, 374, 373, 390, 249, 263),
)
RIGHT_BROW = (70, 63, 105, 66, 107)
LEFT_BROW = (336, 296, 334, 293, 300)
# Their lower edges: without them a raised brow is stretched, not moved.
BROW_EDGES = (46, 53, 52, 65, 55, 276, 283, 282, 295, 285)
NOSE_RIDGE = (168, 6, 197, 195, 5, 4, 1, 2)
NOSTRILS = (98, 97, 2, 326, 327)
RIGHT_IRIS = (468, 469, 470, 471, 472)
LEFT_IRIS = (473, 474, 475, 476, 477)
CHEEKS = (
    50, 280, 205, 425, 187, 411, 216, 436, 212, 432, 57, 287, 43, 273, 204, 424, 194, 418,
    200, 199, 175, 18, 83, 313, 182, 406, 106, 335, 32, 262, 208, 428, 140, 369, 171, 396,
    64, 294, 119, 348, 230, 450, 139, 368,
)  # fmt: skip

# Points that hardly move with expression: what alignment and head pose are measured on.
STABLE = (33, 133, 362, 263, 168, 6, 197, 10, 151, 127, 356)

LIP_ROWS = (
    OUTER_UPPER_LIP,
    *UPPER_RINGS,
    INNER_UPPER_LIP,
    OUTER_LOWER_LIP,
    *LOWER_RINGS,
    INNER_LOWER_LIP,
)

# The points whose motion drives the flow, and the pairs whose midpoints join them.
FLOW_POINTS = tuple(
    sorted(
        {p for row in LIP_ROWS for p in row}
        | {*OVAL, *RIGHT_EYE, *LEFT_EYE, *RIGHT_BROW, *LEFT_BROW, *NOSE_RIDGE, *NOSTRILS, *CHEEKS}
        | {468, 473}
    )
)
FLOW_MIDPOINTS = tuple(pair for row in LIP_ROWS for pair in zip(row[:-1], row[1:], strict=True))

# The same for the head as a whole, whose grid is too coarse for what lies between the lips' rows.
HEAD_POINTS = tuple(
    sorted(
        ({*FLOW_POINTS} | {*BROW_EDGES})
        - {p for r in (*UPPER_RINGS, *LOWER_RINGS) for p in r[1:-1]}
    )
)
HEAD_MIDPOINTS = tuple(
    pair
    for row in (OUTER_UPPER_LIP, OUTER_LOWER_LIP, INNER_UPPER_LIP, INNER_LOWER_LIP)
    for pair in zip(row[:-1], row[1:], strict=True)
)

# Polylines drawn as separate maps for the painted crop.
LINE_GROUPS = (
    JAW,
    OUTER_LOWER_LIP,
    OUTER_UPPER_LIP,
    INNER_LOWER_LIP,
    INNER_UPPER_LIP,
    (*NOSE_RIDGE[-4:], *NOSTRILS),
)
