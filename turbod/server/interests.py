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


class Account:
    """What the connections of one owner have together.

    Attributes:
        connections: open now.
        dids: in their filters, each counted as often as some filter has it.
    """

    __slots__ = ("connections", "dids")

    def __init__(self) -> None:
        self.connections = 0
        self.dids = 0


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


class Share:
    """The Interests of all, as far as one owner may have some.

    Args:
        interests: of all.
        account: of the owner's connections.
        name: the owner's.
        max_dids: in the filters of all its connections; None for no bound of its own.
    """

    def __init__(
        self,
        interests: Interests,
        account: Account,
        *,
        name: str = "",
        max_dids: int | None = None,
    ) -> None:
        self._interests = interests
        self._account = account
        self._name = name
        self._max_dids = max_dids

    def acquire(self, chosen: Filter, *, replacing: Interest | None = None) -> Interest:
        """Return the Interest of a filter, which may soon take another's place.

        Raises:
            TooManyFilters: where its DIDs would exceed a bound.
        """
        count = chosen.did_count
        held = self._account.dids - (0 if replacing is None else replacing.filter.did_count)
        if count and self._max_dids is not None and held + count > self._max_dids:
            raise TooManyFilters(
                f"the filters of the token {self._name} together hold {held} DIDs of at most "
                f"{self._max_dids}, and this one has {count}"
            )
        interest = self._interests.acquire(chosen)
        self._account.dids += count
        return interest

    def release(self, interest: Interest) -> None:
        """Give back what `acquire` returned."""
        self._account.dids -= interest.filter.did_count
        self._interests.release(interest)
