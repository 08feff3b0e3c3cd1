"""Butcher tableaus of explicit Runge-Kutta methods, as data.

One step of size h from (t, x) takes the slopes

    k_i = velocity(x + h sum_j a_ij k_j, t + c_i h),    x' = x + h sum_i b_i k_i.

Names and methods are those of torchdiffeq, which the authors use: its "rk4" is Kutta's 3/8 rule.
Source: Hairer, Norsett & Wanner, Solving Ordinary Differential Equations I, section II.1.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Tableau:
    """An explicit method; row i of `a` has i entries."""

    name: str
    order: int  # the error at a fixed end time is O(h^order)
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    c: tuple[float, ...]

    @property
    def stages(self) -> int:
        return len(self.b)


@dataclass(frozen=True, kw_only=True)
class EmbeddedPair(Tableau):
    """A method with an error estimate of one order less.

    The last stage must be the slope at the end of the step (last row of `a` = `b`, last `c` = 1): it is the first
    stage of the next step, so it costs no call.
    """

    # error estimate per step size: weights b minus those of the embedded method
    error: tuple[float, ...]

    def __post_init__(self) -> None:
        if (*self.a[-1], 0) != self.b or self.c[-1] != 1 or len(self.error) != len(self.b):
            raise ValueError(
                f"{self.name}: the last stage must be at the end of the step (last row of a and a 0 = b, last c = 1), "
                f"with one error weight for each of the {len(self.b)} stages"
            )


EULER = Tableau(name="euler", order=1, a=((),), b=(1,), c=(0,))
MIDPOINT = Tableau(name="midpoint", order=2, a=((), (1 / 2,)), b=(0, 1), c=(0, 1 / 2))
HEUN2 = Tableau(name="heun2", order=2, a=((), (1,)), b=(1 / 2, 1 / 2), c=(0, 1))
HEUN3 = Tableau(name="heun3", order=3, a=((), (1 / 3,), (0, 2 / 3)), b=(1 / 4, 0, 3 / 4), c=(0, 1 / 3, 2 / 3))
RK4 = Tableau(
    name="rk4",
    order=4,
    a=((), (1 / 3,), (-1 / 3, 1), (1, -1, 1)),
    b=(1 / 8, 3 / 8, 3 / 8, 1 / 8),
    c=(0, 1 / 3, 2 / 3, 1),
)
# Dormand & Prince (1980); the embedded method is of fourth order
DOPRI5 = EmbeddedPair(
    name="dopri5",
    order=5,
    a=(
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    b=(35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0),
    c=(0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1),
    error=(71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
)
