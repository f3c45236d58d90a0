"""All groups of calls by their OpenAPI tag."""

from gateway.rest.call import Calls
from gateway.rest.chat import ChatCalls
from gateway.rest.inbox import InboxCalls
from gateway.rest.market import MarketCalls
from gateway.rest.messages import MessageCalls
from gateway.rest.search import SearchCalls

GROUPS: dict[str, type[Calls]] = {
    "Chat": ChatCalls,
    "Messages": MessageCalls,
    "Search": SearchCalls,
    "Market": MarketCalls,
    "Inbox": InboxCalls,
}
