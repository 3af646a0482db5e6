"""The simulated network: the same seed and the same times give the same stream. Pure."""

from bisect import bisect
from collections.abc import Mapping
from itertools import accumulate
from typing import Final

from turbod.simulation.acts import ACTS
from turbod.simulation.happening import Happening
from turbod.simulation.state import State

LIKE_THE_REAL_ONE: Final[Mapping[str, float]] = {
    # Relative frequency of each act; about what one second of the production stream shows
    # (105 likes, 17 posts and 15 reposts in 152 events), with more of what is rare and instructive.
    "like": 46,
    "repost": 8,
    "follow": 8,
    "post": 9,
    "reply": 11,
    "quote": 3,
    "mention": 1.5,
    "quote_other": 0.3,
    "undo": 3,
    "delete_post": 1.2,
    "block": 0.6,
    "edit_profile": 0.6,
    "listen": 0.4,
    "change_handle": 0.15,
    "update_post": 0.1,
    "go_live": 0.1,
    "deactivate": 0.06,
    "reactivate": 0.05,
    "take_down": 0.02,
    "delete_account": 0.02,
}
MOSTLY_POSTS: Final[Mapping[str, float]] = {
    # For those who want few events and much in them.
    **{act: weight / 5 for act, weight in LIKE_THE_REAL_ONE.items()},
    "post": 30,
    "reply": 40,
    "quote": 15,
    "mention": 8,
    "quote_other": 2,
    "delete_post": 4,
    "edit_profile": 2,
    "change_handle": 1,
    "deactivate": 0.5,
    "reactivate": 0.4,
}
_FIRST_NOW_US: Final = 1_790_000_000_000_000


class Network:
    """Accounts and what they do.

    Args:
        seed: of everything random.
        accounts: how many there are; those who leave for good are replaced.
        mix: relative weights of `turbod.simulation.acts.ACTS`; absent acts never happen.
        posts_kept: the newest posts that can still be answered; older ones are forgotten.
        now_us: about when it begins; accounts are older than that.
    """

    def __init__(
        self,
        *,
        seed: int = 1,
        accounts: int = 1000,
        mix: Mapping[str, float] = LIKE_THE_REAL_ONE,
        posts_kept: int = 200_000,
        now_us: int = _FIRST_NOW_US,
    ) -> None:
        self._state = State(seed=seed, accounts=accounts, posts_kept=posts_kept, now_us=now_us)
        self._acts = [ACTS[name] for name in mix]
        self._weights = list(accumulate(mix.values()))
        self.people = self._state.people

    def next_event(self, now_us: int) -> Happening:
        """Return what happens next, at `now_us` or a few microseconds after the one before."""
        state = self._state
        state.now_us = now_us
        while not state.queue:
            draw = state.random.random() * self._weights[-1]
            self._acts[bisect(self._weights, draw)](state)
        return state.queue.popleft()

    def act(self, name: str, now_us: int) -> list[Happening]:
        """Make one act happen, whatever its weight; empty where there was nothing to do it to."""
        state = self._state
        state.now_us = now_us
        ACTS[name](state)
        happened = list(state.queue)
        state.queue.clear()
        return happened
