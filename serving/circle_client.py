"""The part of Client and AsyncClient that is about circles."""

from collections.abc import Sequence

from serving.circle_calls import get_circle_call, get_user_circles_call, list_circles_call
from serving.circle_results import CirclePage, FoundCircle, UserCircles
from serving.client_messages import Users
from serving.sending import AsyncSender, Sender

# ruff: noqa: ASYNC109  (`timeout` is the call's deadline: it travels to the server)


class CircleCalls:
    """What a Client can ask about circles."""

    _sender: Sender

    def list_circles(
        self,
        *,
        level: str = "",
        district_id: int | None = None,
        page_size: int = 100,
        page_token: str = "",
        timeout: float | None = None,
    ) -> CirclePage:
        """A page of circles, of districts (`level`), or of both; of one district's circles."""
        call = list_circles_call(level, district_id, page_size, page_token)
        return self._sender.send(call, timeout)

    def get_circle(
        self, circle_id: int, *, fields: Sequence[str] = (), timeout: float | None = None
    ) -> FoundCircle:
        """One circle or district, its neighbours, and columns of its sample items."""
        return self._sender.send(get_circle_call(circle_id, fields), timeout)

    def get_user_circles(
        self, users: Users, *, n: int = 5, time_us: int = 0, timeout: float | None = None
    ) -> UserCircles:
        """Each user's share of circles and of districts, the n largest of either."""
        return self._sender.send(get_user_circles_call(users, n, time_us), timeout)


class AsyncCircleCalls:
    """The same calls, awaited."""

    _sender: AsyncSender

    async def list_circles(
        self,
        *,
        level: str = "",
        district_id: int | None = None,
        page_size: int = 100,
        page_token: str = "",
        timeout: float | None = None,
    ) -> CirclePage:
        """A page of circles, of districts (`level`), or of both; of one district's circles."""
        call = list_circles_call(level, district_id, page_size, page_token)
        return await self._sender.send(call, timeout)

    async def get_circle(
        self, circle_id: int, *, fields: Sequence[str] = (), timeout: float | None = None
    ) -> FoundCircle:
        """One circle or district, its neighbours, and columns of its sample items."""
        return await self._sender.send(get_circle_call(circle_id, fields), timeout)

    async def get_user_circles(
        self, users: Users, *, n: int = 5, time_us: int = 0, timeout: float | None = None
    ) -> UserCircles:
        """Each user's share of circles and of districts, the n largest of either."""
        return await self._sender.send(get_user_circles_call(users, n, time_us), timeout)
