"""The filters of all subscribers: equal ones are one object, their DIDs together are bounded."""

from itertools import count

from turbod.filter import EVERYTHING, Filter


class TooManyFilters(Exception):
    """The DIDs in all subscribers' filters together have reached their bound."""


class Interest:
    """One filter as one object, however many subscribers have it.

    Attributes:
        serial: never given twice, so that what was built for one is not taken for another's.
        users: how many connections hold it.
    """

    __slots__ = ("all_dids", "filter", "is_everything", "serial", "users")
    _serials = count(1)

    def __init__(self, chosen: Filter) -> None:
        self.filter = chosen
        self.all_dids = chosen.all_dids
        self.is_everything = chosen == EVERYTHING
        self.serial = next(self._serials)
        self.users = 0


class Interests:
    """Owns every Interest that some connection holds.

    Attributes:
        max_dids: in all of them together; it may be changed, which takes none away.
    """

    def __init__(self, *, max_dids: int) -> None:
        self.max_dids = max_dids
        self._interests: dict[Filter, Interest] = {}
        self.dids = 0

    def acquire(self, chosen: Filter) -> Interest:
        """Return the one Interest of this filter; give it back with `release`.

        Raises:
            TooManyFilters: where its DIDs would exceed the bound.
        """
        interest = self._interests.get(chosen)
        if interest is None:
            if chosen.did_count and self.dids + chosen.did_count > self.max_dids:
                raise TooManyFilters(
                    f"the filters of all subscribers together hold {self.dids} DIDs of at most "
                    f"{self.max_dids}, and this one has {chosen.did_count}"
                )
            interest = self._interests[chosen] = Interest(chosen)
            self.dids += chosen.did_count
        interest.users += 1
        return interest

    def release(self, interest: Interest) -> None:
        """Give back what `acquire` returned."""
        assert interest.users > 0, "released more often than acquired"
        interest.users -= 1
        if not interest.users:
            del self._interests[interest.filter]
            self.dids -= interest.filter.did_count
