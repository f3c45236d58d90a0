"""Names of the queues of one process."""

from shared.bus.private_queue import PrivateQueue, sibling_queue


def queue(prefix: str) -> PrivateQueue:
    return PrivateQueue(prefix, "node_1", {}, lambda body: None)


def test_sibling_is_named_as_the_process_names_it() -> None:
    chat, rates = queue("chat"), queue("rates")
    for connection in (1, 2):
        chat.rename(connection)
        rates.rename(connection)
        assert sibling_queue(chat.name, "rates") == rates.name
