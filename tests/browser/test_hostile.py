"""User text stays text, and the content security policy holds."""

from playwright.async_api import Browser, Route, expect

from tests.support.browser import Visitor
from tests.support.live_client import RestClient

HOSTILE = (
    '<img src=x onerror="window.hacked = 1">',
    "<script>window.hacked = 2</script>",
    '"><svg onload="window.hacked = 3">',
    "</textarea></li><b>bold</b>",
    "javascript:window.hacked=4",
    "&lt;i&gt; {{7*7}} ${7*7}",
    "\u202eright to left",
)

# Actions of an attacker's script. Returns what blocked each: directives of the policy, and errors.
ATTEMPTS = """async () => {
    const refused = [];
    document.addEventListener("securitypolicyviolation", (event) => refused.push(event.effectiveDirective));
    const attempt = (act) => { try { act(); } catch (error) { refused.push(error.name); } };
    const add = (tag, fields) => attempt(() => {
        document.body.append(Object.assign(document.createElement(tag), fields));
    });
    attempt(() => { document.body.innerHTML = "<p>no</p>"; });
    add("script", { text: "window.hacked = 1" });
    add("iframe", { src: "http://127.0.0.1:9/" });
    add("base", { href: "http://127.0.0.1:9/" });
    add("style", { textContent: "body { display: none }" });
    add("img", { src: "http://127.0.0.1:9/beacon.png" });
    attempt(() => new WebSocket("ws://127.0.0.1:9/"));
    await fetch("http://127.0.0.1:9/").catch(() => refused.push("fetch"));
    for (let round = 0; round < 100 && !refused.includes("frame-src"); round += 1) // reported by another process
        await new Promise((resolve) => setTimeout(resolve, 50));
    return refused;
}"""


async def test_user_text_is_shown_verbatim(browser: Browser, url: str) -> None:
    name = "<u onclick=alert(1)>Mallory</u>"
    mallory = RestClient(
        url, "user_mallory", firstName=name, lastName='" onload="x', avatar="javascript:window.hacked=5"
    )
    room = await mallory.create_room(HOSTILE[0], description=HOSTILE[1])
    for text in HOSTILE:
        await mallory.data("POST", f"/v1/chatrooms/{room}/messages", json={"message": text})
    async with Visitor.arrive(browser, url, HOSTILE[2]) as lea:
        await lea.room("onerror").click()
        await expect(lea.messages()).to_have_count(len(HOSTILE))
        assert await lea.texts() == list(HOSTILE)
        await lea.say(HOSTILE[0])
        await expect(lea.messages()).to_have_count(len(HOSTILE) + 1)
        await expect(lea.page.locator(".author").first).to_have_text(f'{name} " onload="x')
        await lea.page.get_by_role("button", name="Members", exact=True).click()
        await expect(lea.page.get_by_role("dialog")).to_contain_text(name)
        made = ".messages :is(img, b, script, svg:not(.icon)), dialog u, .room img, .chat-head img"
        await expect(lea.page.locator(made)).to_have_count(0)
        assert await lea.page.evaluate("window.hacked === undefined")


async def test_policy_blocks_injected_resources(browser: Browser, url: str) -> None:
    async with Visitor.arrive(browser, url, "Mo Farah") as mo:
        refused = await mo.page.evaluate(ATTEMPTS)
        expected = {"require-trusted-types-for", "frame-src", "base-uri", "style-src-elem", "img-src", "connect-src"}
        assert expected <= set(refused)
        assert "fetch" in refused
        assert await mo.page.evaluate("window.hacked === undefined")
        assert mo.problems  # the browser logged each violation
        mo.problems.clear()


async def test_inline_script_does_not_run(browser: Browser, url: str) -> None:
    async with Visitor.arrive(browser, url) as nia:

        async def inject(route: Route) -> None:
            answer = await route.fetch()
            body = (await answer.text()).replace("</head>", "<script>window.hacked = 1</script></head>")
            await route.fulfill(response=answer, body=body)

        await nia.page.route(url + "/", inject)
        await nia.page.goto(url + "/")
        await expect(nia.page.get_by_label("Your name")).to_be_visible()
        assert await nia.page.evaluate("window.hacked === undefined")
        assert any("inline script" in problem for problem in nia.problems)
        nia.problems.clear()
