"""The order in which the nodes of a cluster are tried."""

import pytest

from shared.bus.hosts import HOST_TIMEOUT_S, ONLY_HOST_TIMEOUT_S, BrokerHosts

THREE = "amqp://name:p@ss@one:5672,two:5673,three/vhost"


@pytest.mark.parametrize(
    ("url", "urls"),
    [
        ("amqp://one/", ["amqp://one/"]),
        ("amqp://name:secret@one:5672,two/", ["amqp://name:secret@one:5672/", "amqp://name:secret@two/"]),
        (THREE, ["amqp://name:p@ss@one:5672/vhost", "amqp://name:p@ss@two:5673/vhost", "amqp://name:p@ss@three/vhost"]),
        ("amqp://one,two,", ["amqp://one", "amqp://two"]),
    ],
)
def test_each_host_gets_url(url: str, urls: list[str]) -> None:
    assert BrokerHosts(url).urls == urls


def test_no_host_is_tried_again_before_all_others() -> None:
    hosts = BrokerHosts(THREE)
    tried = [hosts.next_url() for _ in range(9)]
    assert all(len(set(tried[start : start + 3])) == 3 for start in range(7))


def test_processes_start_at_different_hosts() -> None:
    assert len({BrokerHosts(THREE).next_url() for _ in range(100)}) == 3


def test_frozen_host_of_several_is_left_sooner() -> None:
    assert BrokerHosts("amqp://one/").connect_timeout_s == ONLY_HOST_TIMEOUT_S
    assert BrokerHosts(THREE).connect_timeout_s == HOST_TIMEOUT_S
