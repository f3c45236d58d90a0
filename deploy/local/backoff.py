"""How long to wait before a program that died is started again."""

_FIRST_DELAY_S = 0.2
_LONGEST_DELAY_S = 5.0
_STEADY_AFTER_S = 30.0


class Backoff:
    """Doubles from 0.2 s to 5 s; a program that lived for 30 s begins at 0.2 s again."""

    def __init__(self) -> None:
        self._delay_s = _FIRST_DELAY_S

    def delay_s(self, alive_s: float) -> float:
        """Return the wait after a death at the age of `alive_s`."""
        if alive_s >= _STEADY_AFTER_S:
            self._delay_s = _FIRST_DELAY_S
        delay_s = self._delay_s
        self._delay_s = min(2 * delay_s, _LONGEST_DELAY_S)
        return delay_s
