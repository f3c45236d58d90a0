"""CORS headers by origin and setting."""

import pytest

from gateway.http.cors import headers_for
from gateway.origins import OriginPolicy

APP, OTHER = "https://app.example", "https://other.example"
ORIGIN, CREDENTIALS = "Access-Control-Allow-Origin", "Access-Control-Allow-Credentials"


@pytest.mark.parametrize("allowed", [(), ("*",)])
@pytest.mark.parametrize("is_preflight", [True, False])
def test_any_origin_is_echoed_without_credentials(allowed: tuple[str, ...], is_preflight: bool) -> None:
    headers = headers_for(OriginPolicy(allowed), [OTHER], is_preflight=is_preflight)
    assert headers[ORIGIN] == OTHER
    assert CREDENTIALS not in headers


@pytest.mark.parametrize("is_preflight", [True, False])
def test_allowed_origin_may_send_credentials_and_another_gets_nothing(is_preflight: bool) -> None:
    policy = OriginPolicy([APP])
    headers = headers_for(policy, [APP], is_preflight=is_preflight)
    assert (headers[ORIGIN], headers[CREDENTIALS]) == (APP, "true")
    for origins in ([OTHER], [], [APP, OTHER], ["null"], [f"{APP}.evil.example"], ["*"]):
        assert headers_for(policy, origins, is_preflight=is_preflight) == {}


def test_wildcard_never_stands_in_an_answer() -> None:
    for allowed in ((), ("*",), (APP,)):
        for origin in (APP, OTHER, "*"):
            assert headers_for(OriginPolicy(allowed), [origin], is_preflight=True).get(ORIGIN) in (None, origin)
