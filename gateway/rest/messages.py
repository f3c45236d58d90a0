"""REST calls for messages: send, list, edit, delete, replies, reactions, pins, read marks."""

from typing import Annotated

import msgspec

from gateway.backend import read_sent
from gateway.rest.call import (
    Calls,
    CreatedOnce,
    MessageId,
    Paged,
    RoomId,
    delete,
    get,
    patch,
    post,
    put,
)
from gateway.rest.envelope import Limit, ListQuery, Page, RequestStruct
from shared.commands import chat, chat_queries, chat_views
from shared.commands.command import ITEM_MAX_BYTES, Caller
from shared.errors import ErrorCode, Refusal
from shared.protocol.message_input import EditInput, MessageInput
from shared.protocol.reaction_emoji import reaction_emoji
from shared.protocol.server_frames import ReadMark
from shared.protocol.validation import Seq, UserId

Emoji = Annotated[str, msgspec.Meta(min_length=1, description="one emoji, or a name such as :party_parrot:")]


class MessagesQuery(RequestStruct, frozen=True):
    """The page of a room's messages to return, as `MessageCalls.list_messages` describes."""

    page: Page = 1
    limit: Limit = 50
    before: Seq | None = None
    after: Seq | None = None
    around: Seq | None = None


class ReactionsQuery(RequestStruct, frozen=True):
    """`emoji` selects one kind of reactions."""

    page: Page = 1
    limit: Limit = 20
    emoji: Emoji | None = None


class NewMessage(MessageInput, frozen=True, kw_only=True):
    """Sends with the same `clientMessageId` store one message (idempotent)."""


class NewDirect(MessageInput, frozen=True, kw_only=True):
    """Sends with the same `clientMessageId` store one message (idempotent)."""

    user_id: UserId


class NewText(EditInput, frozen=True, kw_only=True):
    """The new text. Absent `mentions` are kept."""


class NewReadMark(RequestStruct, frozen=True):
    """The seq of the last message that the caller has read."""

    seq: Seq


class MessageCalls(Calls):
    """Messages, their reactions and pins, and read marks."""

    # Lists ----------------------------------------------------------------------------------------------------------

    @get("/v1/chatrooms/{chatroomId}/messages", item_max_bytes=ITEM_MAX_BYTES)
    async def list_messages(
        self, caller: Caller, chatroom_id: RoomId, query: MessagesQuery
    ) -> Paged[chat_views.MessageView]:
        """Return the messages of a room, newest first.

        `before`, `after` and `around` are seqs, and cost the same at any depth. `after` and `around` take precedence
        over `page`; with `before`, `page` counts the pages back from it. With `around`, the message of that seq is in
        the middle of the page.
        """
        if query.around is not None:
            if query.before is not None or query.after is not None:
                raise Refusal.invalid("around", "must not be given together with before or after")
            around = chat_queries.ListMessagesAround(
                **self._backend.request_fields(caller), room_id=chatroom_id, seq=query.around, limit=query.limit
            )
            found = await self._backend.chat_request(around, chat_queries.MessagePage)
        else:
            command = chat_queries.ListMessages(
                **self._backend.request_fields(caller),
                room_id=chatroom_id,
                page=query.page,
                limit=query.limit,
                before=query.before,
                after=query.after,
            )
            found = await self._backend.chat_request(command, chat_queries.MessagePage)
        return Paged(found.items, query.page, query.limit, found.total)

    @get("/v1/chatrooms/{chatroomId}/messages/{messageId}")
    async def get_message(self, caller: Caller, chatroom_id: RoomId, message_id: MessageId) -> chat_views.MessageView:
        """Return one message as it is now."""
        return await self._message(caller, chatroom_id, message_id)

    @get("/v1/chatrooms/{chatroomId}/messages/{messageId}/replies", item_max_bytes=ITEM_MAX_BYTES)
    async def list_replies(
        self, caller: Caller, chatroom_id: RoomId, message_id: MessageId, query: ListQuery
    ) -> Paged[chat_views.MessageView]:
        """Return the replies to a message, oldest first."""
        command = chat_queries.ListReplies(
            **self._backend.request_fields(caller),
            room_id=chatroom_id,
            message_id=message_id,
            page=query.page,
            limit=query.limit,
        )
        found = await self._backend.chat_request(command, chat_queries.MessagePage)
        return Paged(found.items, query.page, query.limit, found.total)

    @get("/v1/chatrooms/{chatroomId}/messages/{messageId}/reactions")
    async def list_reactions(
        self, caller: Caller, chatroom_id: RoomId, message_id: MessageId, query: ReactionsQuery
    ) -> Paged[chat_views.ReactionView]:
        """Return the reactions to a message, newest first."""
        command = chat_queries.ListReactions(
            **self._backend.request_fields(caller),
            room_id=chatroom_id,
            message_id=message_id,
            page=query.page,
            limit=query.limit,
            emoji=None if query.emoji is None else reaction_emoji(query.emoji),
        )
        found = await self._backend.chat_request(command, chat_queries.ReactionPage)
        return Paged(found.items, query.page, query.limit, found.total)

    @get("/v1/chatrooms/{chatroomId}/pins", item_max_bytes=ITEM_MAX_BYTES)
    async def list_pins(self, caller: Caller, chatroom_id: RoomId, query: ListQuery) -> Paged[chat_views.PinView]:
        """Return the pinned messages of a room, the newest pin first."""
        command = chat_queries.ListPins(
            **self._backend.request_fields(caller), room_id=chatroom_id, page=query.page, limit=query.limit
        )
        found = await self._backend.chat_request(command, chat_queries.PinPage)
        return Paged(found.items, query.page, query.limit, found.total)

    # Sending --------------------------------------------------------------------------------------------------------

    @post("/v1/chatrooms/{chatroomId}/messages", ErrorCode.RATE_LIMITED)
    async def send_message(
        self, caller: Caller, chatroom_id: RoomId, body: NewMessage
    ) -> CreatedOnce[chat_views.MessageView]:
        """Send a message. Sending to a public room makes the caller a member."""
        body.check()
        refusal = await self._backend.refusal_of_symbols(body)
        sent = await self._backend.send_message(caller, chatroom_id, body, refusal)
        return await self._sent(caller, read_sent(sent))

    @post("/v1/messages/direct", ErrorCode.RATE_LIMITED, ErrorCode.NOT_FOUND)
    async def send_direct(self, caller: Caller, body: NewDirect) -> CreatedOnce[chat_views.MessageView]:
        """Send a message to one user. Creates the direct room of the two users if it does not exist."""
        body.check()
        refusal = await self._backend.refusal_of_symbols(body)
        sent = await self._backend.send_direct(caller, body.user_id, body, refusal)
        return await self._sent(caller, read_sent(sent))

    @post("/v1/chatrooms/{chatroomId}/read")
    async def mark_read(self, caller: Caller, chatroom_id: RoomId, body: NewReadMark) -> ReadMark:
        """Mark the room as read up to `seq` and return the mark. The mark never moves back."""
        return await self._backend.mark_read(caller, chatroom_id, body.seq)

    # Changes --------------------------------------------------------------------------------------------------------

    @patch(
        "/v1/chatrooms/{chatroomId}/messages/{messageId}",
        ErrorCode.RATE_LIMITED,
        ErrorCode.CONFLICT,
        ErrorCode.EDIT_WINDOW,
    )
    async def edit_message(
        self, caller: Caller, chatroom_id: RoomId, message_id: MessageId, body: NewText
    ) -> chat_views.MessageView:
        """Edit one of the caller's own messages."""
        command = chat.EditMessage(
            **self._backend.room_command_fields(caller),
            room_id=chatroom_id,
            message_id=message_id,
            message=body.text(),
            mentions=body.all_mentions(),
        )
        await self._backend.room_command(command, chat.Changed)
        return await self._message(caller, chatroom_id, message_id)

    @delete("/v1/chatrooms/{chatroomId}/messages/{messageId}", ErrorCode.RATE_LIMITED)
    async def delete_message(self, caller: Caller, chatroom_id: RoomId, message_id: MessageId) -> chat.Gone:
        """Replace a message by a tombstone.

        Only its author may, and outside direct rooms a moderator, the creator or an admin who ranks above the author.
        """
        command = chat.DeleteMessage(
            **self._backend.room_command_fields(caller), room_id=chatroom_id, message_id=message_id
        )
        await self._backend.room_command(command, chat.Changed)
        return chat.Gone(id=message_id)

    @put(
        "/v1/chatrooms/{chatroomId}/messages/{messageId}/reactions/{emoji}",
        ErrorCode.RATE_LIMITED,
        ErrorCode.CONFLICT,
    )
    async def add_reaction(
        self, caller: Caller, chatroom_id: RoomId, message_id: MessageId, emoji: Emoji
    ) -> chat_views.MessageView:
        """React to a message. Idempotent. Reacting in a public room makes the caller a member."""
        await self._react(caller, chatroom_id, message_id, emoji, is_removal=False)
        return await self._message(caller, chatroom_id, message_id)

    @delete(
        "/v1/chatrooms/{chatroomId}/messages/{messageId}/reactions/{emoji}",
        ErrorCode.RATE_LIMITED,
        ErrorCode.CONFLICT,
    )
    async def remove_reaction(
        self, caller: Caller, chatroom_id: RoomId, message_id: MessageId, emoji: Emoji
    ) -> chat.Gone:
        """Remove the caller's reaction. Idempotent. The answer's `id` is the emoji."""
        return chat.Gone(id=await self._react(caller, chatroom_id, message_id, emoji, is_removal=True))

    @put("/v1/chatrooms/{chatroomId}/pins/{messageId}", ErrorCode.RATE_LIMITED, ErrorCode.CONFLICT)
    async def pin_message(self, caller: Caller, chatroom_id: RoomId, message_id: MessageId) -> chat_views.PinView:
        """Pin a message. Requires the rank of moderator or higher; in a direct room both users may."""
        await self._pin(caller, chatroom_id, message_id, is_removal=False)
        query = chat_queries.ListPins(
            **self._backend.request_fields(caller),
            room_id=chatroom_id,
            page=1,
            limit=1,
            message_id=message_id,
            is_granted=True,
        )
        found = await self._backend.chat_request(query, chat_queries.PinPage)
        if not found.items:  # unpinned meanwhile
            raise Refusal.not_found("pin")
        return found.items[0]

    @delete("/v1/chatrooms/{chatroomId}/pins/{messageId}", ErrorCode.RATE_LIMITED)
    async def unpin_message(self, caller: Caller, chatroom_id: RoomId, message_id: MessageId) -> chat.Gone:
        """Unpin a message. Idempotent."""
        await self._pin(caller, chatroom_id, message_id, is_removal=True)
        return chat.Gone(id=message_id)

    # Steps that several calls share ---------------------------------------------------------------------------------

    async def _message(self, caller: Caller, room_id: str, message_id: str) -> chat_views.MessageView:
        query = chat_queries.GetMessage(**self._backend.request_fields(caller), room_id=room_id, message_id=message_id)
        return await self._backend.chat_request(query, chat_views.MessageView)

    async def _sent(self, caller: Caller, sent: chat.Sent) -> CreatedOnce[chat_views.MessageView]:
        """Return the stored message; a repeated one in its current state, which may differ from the original."""
        message = sent.message
        if sent.repeated:
            message = await self._message(caller, message.chatroom_id, message.id)
        return CreatedOnce(message, repeated=sent.repeated)

    async def _react(self, caller: Caller, room_id: str, message_id: str, emoji: str, *, is_removal: bool) -> str:
        kind = reaction_emoji(emoji)
        fields = self._backend.room_command_fields(caller)
        command = chat.React(**fields, room_id=room_id, message_id=message_id, emoji=kind, is_removal=is_removal)
        await self._backend.room_command(command, chat.Changed)
        return kind

    async def _pin(self, caller: Caller, room_id: str, message_id: str, *, is_removal: bool) -> None:
        fields = self._backend.room_command_fields(caller)
        command = chat.PinMessage(**fields, room_id=room_id, message_id=message_id, is_removal=is_removal)
        await self._backend.room_command(command, chat.Changed)
