"""REST calls that search messages."""

from typing import Annotated

import msgspec

from gateway.rest.call import Calls, Found, RoomId, get
from gateway.rest.envelope import Limit, RequestStruct
from shared.commands import chat_queries, chat_views
from shared.commands.command import ITEM_MAX_BYTES, Caller
from shared.errors import ErrorCode
from shared.protocol.validation import Id, ShownUserId

SearchText = Annotated[str, msgspec.Meta(min_length=2, max_length=100)]


class RoomSearchQuery(RequestStruct, frozen=True):
    """Every word of `q` is in the message; the last one may be the beginning of a word. `userId` is the author.

    `before` is the id of a message: only older ones are found.
    """

    q: SearchText
    user_id: ShownUserId | None = None
    limit: Limit = 20
    before: Id | None = None


class SearchQuery(RequestStruct, frozen=True):
    """Every word of `q` is in the message; the last one may be the beginning of a word.

    `before` is the id of a message: only older ones are found.
    """

    q: SearchText
    limit: Limit = 20
    before: Id | None = None


class SearchCalls(Calls):
    """Search in messages."""

    @get("/v1/chatrooms/{chatroomId}/messages/search", item_max_bytes=ITEM_MAX_BYTES)
    async def search_room(
        self, caller: Caller, chatroom_id: RoomId, query: RoomSearchQuery
    ) -> Found[chat_views.MessageView]:
        """Find messages of a room, newest first.

        A call searches a bounded number of messages; `pagination.next` is present if older ones were not
        searched, even if nothing was found.
        """
        command = chat_queries.SearchRoom(
            **self._backend.request_fields(caller),
            room_id=chatroom_id,
            q=query.q,
            limit=query.limit,
            user_id=query.user_id,
            before=query.before,
        )
        found = await self._backend.chat_request(command, chat_queries.FoundMessages)
        return Found(found.items, found.next_before)

    @get("/v1/search", ErrorCode.NOT_FOUND, item_max_bytes=ITEM_MAX_BYTES)
    async def search(self, caller: Caller, query: SearchQuery) -> Found[chat_views.MessageView]:
        """Find messages in all rooms of which the caller is a member, newest first.

        As in one room, `pagination.next` is present if older messages were not searched.
        """
        command = chat_queries.SearchJoinedRooms(
            **self._backend.request_fields(caller), q=query.q, limit=query.limit, before=query.before
        )
        found = await self._backend.chat_request(command, chat_queries.FoundMessages)
        return Found(found.items, found.next_before)
