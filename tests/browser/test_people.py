"""Two users in two browsers on two gateways: chat, typing, read marks, presence, and the loss of a gateway."""

import json

from playwright.async_api import Browser, WebSocketRoute, expect

from tests.support.browser import Visitor
from tests.support.local_system import LocalSystem
from tests.support.scrape import value

GATEWAYS = ("GATEWAY_1", "GATEWAY_2")


def sockets_of(system: LocalSystem) -> dict[str, float]:
    entries = system.entries()
    return {name: value(f"{entries[f'{name}_ADMIN_URL']}/metrics", "gateway_connections") for name in GATEWAYS}


async def reach_another_gateway(visitor: Visitor, system: LocalSystem) -> None:
    """Reload until the two open sockets are on different gateways, since the kernel distributes connections."""
    for _ in range(40):
        if all(sockets_of(system).values()):
            return
        await visitor.page.reload()
        await visitor.is_live()
    raise AssertionError(f"both are on one gateway after 40 attempts: {sockets_of(system)}")


async def test_two_users_chat_and_see_typing_read_marks_and_presence(
    browser: Browser, system: LocalSystem, url: str
) -> None:
    async with Visitor.arrive(browser, url, "Ada Lovelace") as ada:
        await ada.create_room("Gold Desk")
        async with Visitor.arrive(browser, url, "Ben Carter") as ben:
            await reach_another_gateway(ben, system)
            await ben.open_room("Gold Desk")
            await ben.page.get_by_role("button", name="Join").click()
            await expect(ada.page.locator(".chat-head")).to_contain_text("2 members")
            await ben.page.locator("#composer-text").press_sequentially("Good mor")
            await expect(ada.page.locator(".typing")).to_have_text("Ben is typing")
            await ben.say("Good morning, Ada")
            await ada.sees_message("Good morning, Ada")
            await expect(ada.page.locator(".typing")).to_be_empty()
            await ada.say("Good morning, Ben")
            await ben.sees_message("Good morning, Ben")
            await expect(ada.page.locator(".seen")).to_have_text("Read by Ben CarterBC")
            await expect(ada.page.locator(".message .presence.online")).to_have_count(1)
            await expect(ada.page.locator(".chat-head")).to_contain_text("2 online")
        await expect(ada.page.locator(".message .presence.offline")).to_have_count(1)
        await expect(ada.page.locator(".chat-head")).to_contain_text("1 online")


async def test_gateway_death_loses_nothing(browser: Browser, system: LocalSystem, url: str) -> None:
    async with Visitor.arrive(browser, url, "Cleo Marsh") as cleo:
        await cleo.create_room("Oil Desk")
        home = max(sockets_of(system), key=lambda name: sockets_of(system)[name])
        async with Visitor.arrive(browser, url, "Dan Reyes") as dan:
            await reach_another_gateway(dan, system)
            await dan.open_room("Oil Desk")
            await dan.say("before 0")
            await cleo.sees_message("before 0")
            session = await _session(cleo)
            system.kill(home)
            for number in range(10):
                await dan.say(f"meanwhile {number}")
            await cleo.say("sent without a gateway")
            await cleo.is_live()
            expected = ["before 0", *(f"meanwhile {number}" for number in range(10))]
            for visitor in (cleo, dan):
                await visitor.sees_message("meanwhile 9")
                await visitor.sees_message("sent without a gateway")
                texts = await visitor.texts()
                assert [text for text in texts if text != "sent without a gateway"] == expected
                assert texts.count("sent without a gateway") == 1
            assert await cleo.texts() == await dan.texts()
            assert await _session(cleo) != session
            await expect(cleo.page.locator("#banner")).to_be_hidden()
            await expect(cleo.page.locator(".sending, .failed")).to_have_count(0)


async def _session(visitor: Visitor) -> str:
    """Return the gateway session shown by the connection inspector."""
    await visitor.page.locator("#connection").click()
    session = await visitor.page.locator(".facts dt:text-is('Session') + dd").inner_text()
    await visitor.page.keyboard.press("Escape")
    assert session.startswith("sess_"), session
    return session


async def test_refused_message_can_be_resent(browser: Browser, url: str) -> None:
    refused: list[str] = []

    def relay(socket: WebSocketRoute) -> None:
        server = socket.connect_to_server()

        def pass_on(message: str | bytes) -> None:
            frame = json.loads(message)
            if frame["type"] != "chat:send" or refused:
                server.send(message)
                return
            refused.append(frame["clientMessageId"])
            error = {"code": "FORBIDDEN", "message": "not now", "retryable": False}
            socket.send(json.dumps({"type": "error", "id": frame["id"], "data": error}))

        socket.on_message(pass_on)

    async with Visitor.arrive(browser, url, "Olu Adeyemi") as olu:
        await olu.create_room("Second Try")
        await olu.page.route_web_socket("**/v1/live", relay)
        await olu.page.reload()
        await olu.is_live()
        await olu.open_room("Second Try")
        await olu.say("say it twice")
        await expect(olu.page.locator(".failed")).to_contain_text("Not sent: not now")
        await expect(olu.messages()).to_have_count(0)
        await olu.page.get_by_role("button", name="Retry").click()
        await olu.sees_message("say it twice")
        await expect(olu.page.locator(".message")).to_have_count(1)
        assert len(refused) == 1


async def test_invited_user_sees_private_room(browser: Browser, url: str) -> None:
    async with Visitor.arrive(browser, url, "Pia Lind") as pia, Visitor.arrive(browser, url, "Quinn Hale") as quinn:
        await pia.create_room("Closed Circle", "Private", invite="user_quinn_hale")
        await pia.say("only us")
        await quinn.open_room("Closed Circle")
        await quinn.sees_message("only us")
        async with Visitor.arrive(browser, url, "Rob Stone") as rob:
            await rob.page.get_by_role("searchbox", name="Search rooms").fill("Closed")
            await expect(rob.page.get_by_role("heading", name="No matching rooms")).to_be_visible()
            await expect(rob.room("Closed Circle")).to_have_count(0)
        await pia.page.get_by_role("button", name="Members", exact=True).click()
        await (
            pia.page.get_by_role("button", name="Remove Quinn Hale")
            .or_(pia.page.get_by_role("button", name="Remove user_quinn_hale"))
            .click()
        )
        lost = quinn.page.locator(".toast", has_text="“Closed Circle” is no longer accessible to you")
        await expect(lost).to_be_visible()
        await expect(quinn.title()).to_have_count(0)
        await expect(quinn.room("Closed Circle")).to_have_count(0)


async def test_deleted_room_closes_for_everybody(browser: Browser, url: str) -> None:
    async with Visitor.arrive(browser, url, "Sam Pratt") as sam, Visitor.arrive(browser, url, "Tia Wong") as tia:
        await sam.create_room("Short Lived")
        await tia.open_room("Short Lived")
        await sam.page.get_by_role("button", name="Delete room").click()
        await sam.page.get_by_role("dialog").get_by_role("button", name="Delete room").click()
        await expect(tia.page.locator(".toast")).to_contain_text("“Short Lived” was deleted")
        for visitor in (sam, tia):
            await expect(visitor.title()).to_have_count(0)
            await expect(visitor.room("Short Lived")).to_have_count(0)


async def test_direct_message_needs_no_subscription(browser: Browser, url: str) -> None:
    async with Visitor.arrive(browser, url, "Eve Larsen") as eve, Visitor.arrive(browser, url, "Finn Okoro") as finn:
        await eve.create_room("Bonds")
        await finn.open_room("Bonds")
        await finn.say("anyone here?")
        await eve.page.get_by_role("button", name="Finn Okoro").click()
        await expect(eve.title()).to_have_text("Finn Okoro")
        await eve.say("just between us")
        await eve.sees_message("just between us")
        await expect(finn.room("Eve Larsen").locator(".badge")).to_have_text("1 unread")
        await finn.room("Eve Larsen").click()
        await finn.sees_message("just between us")
        await expect(finn.room("Eve Larsen").locator(".badge")).to_have_count(0)
        await finn.say("understood")
        await eve.sees_message("understood")


async def test_creator_gives_roles_and_hands_the_room_over(browser: Browser, url: str) -> None:
    async with Visitor.arrive(browser, url, "Uma Patel") as uma, Visitor.arrive(browser, url, "Vik Rao") as vik:
        await uma.create_room("Handed Over", "Private", invite="user_vik_rao")
        await expect(vik.page.locator(".toast")).to_contain_text("invited you to “Handed Over”")
        await vik.open_room("Handed Over")
        await vik.say("thanks")
        await uma.sees_message("thanks")
        await uma.page.get_by_role("button", name="Members", exact=True).click()
        role = uma.page.get_by_role("combobox", name="Role of Vik Rao")
        await expect(role).to_have_value("member")
        await role.select_option("moderator")
        await expect(role).to_have_value("moderator")
        await role.select_option("creator")
        await uma.page.get_by_role("button", name="Hand over").click()
        own = uma.page.locator(".member", has_text="you").locator(".tag")
        await expect(own).to_have_text("moderator")
        await expect(role).to_have_count(0)
        await uma.page.keyboard.press("Escape")
        await expect(uma.page.get_by_role("button", name="Leave")).to_be_visible()
        await expect(uma.page.get_by_role("button", name="Delete room")).to_have_count(0)
        await vik.page.get_by_role("button", name="Members", exact=True).click()
        await expect(vik.page.get_by_role("combobox", name="Role of Uma Patel")).to_have_value("moderator")
