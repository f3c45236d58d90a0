/** Page at /docs: every call with its parameters, schemas, examples and a form to try it; every frame and event. */

import { byId, h } from "./dom.js";
import { describe } from "./schema_text.js";

const TOKEN = "realtime.docs.token";

async function load(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return response.json();
}

/** Resolve a `$ref`; any other node is returned unchanged. */
function resolve(schema, root) {
  let found = schema;
  while (found?.$ref) found = found.$ref.slice(2).split("/").reduce((at, step) => at[step], root);
  return found;
}

/** Build text in which `…` is set as code. */
const prose = (text) => text.split("`").map((part, at) => (at % 2 ? h("code", null, part) : part));

const json = (value) => JSON.stringify(value, null, 2);
const block = (title, text) => h("div", null, h("h4", null, title), h("pre", { tabindex: 0 }, text));

// Calls ---------------------------------------------------------------------------------------------------------------

function callEntry(api, path, method, call) {
  const body = call.requestBody?.content["application/json"];
  return h("section", { class: "entry", id: call.operationId, "aria-labelledby": `${call.operationId}-title` },
    h("h3", { id: `${call.operationId}-title` }, `${method.toUpperCase()} ${path}`),
    h("p", null, ...prose(call.summary)),
    call.description ? h("p", null, ...prose(call.description)) : null,
    call.parameters ? parameterTable(api, call.parameters) : null,
    body ? h("div", { class: "columns" }, block("Body", describe(body.schema, api)), block("Example", json(body.example))) : null,
    ...Object.entries(call.responses).map(([status, response]) => answer(api, status, resolve(response, api))),
    tryForm(path, method, call, body));
}

function parameterTable(api, parameters) {
  const rows = parameters.map((parameter) => h("tr", null,
    h("td", null, `${parameter.name}${parameter.required ? "" : "?"}`),
    h("td", null, parameter.in),
    h("td", null, describe(parameter.schema, api)),
    h("td", null, parameter.description ?? "")));
  const head = ["Parameter", "In", "Type", ""].map((title) => h("th", { scope: "col" }, title));
  return h("table", null, h("thead", null, h("tr", null, ...head)), h("tbody", null, ...rows));
}

function answer(api, status, response) {
  const content = response.content?.["application/json"];
  const example = content?.example;
  return h("details", { open: example !== undefined && status.startsWith("2") },
    h("summary", null, `${status}  `, ...prose(response.description)),
    content ? h("div", { class: "columns" },
      block("Answer", describe(content.schema, api)),
      example === undefined ? null : block("Example", json(example))) : null);
}

function tryForm(path, method, call, body) {
  const output = h("pre", { tabindex: 0, "aria-live": "polite" }, "");
  const inputs = (call.parameters ?? []).map((parameter) =>
    [parameter, h("input", { name: parameter.name, required: parameter.required, placeholder: parameter.in })]);
  const text = body ? h("textarea", { name: "body", "aria-label": "Body" }, json(body.example)) : null;
  const submit = async (event) => {
    event.preventDefault();
    output.textContent = "…";
    try {
      output.textContent = await send(method, path, inputs, text?.value);
    } catch (error) {
      output.textContent = String(error);
    }
  };
  return h("details", null, h("summary", null, "Try it"), h("form", { on: { submit } },
    ...inputs.map(([parameter, input]) => h("label", null, parameter.name, input)),
    text, h("button", { type: "submit" }, "Send"), output));
}

async function send(method, path, inputs, body) {
  let target = path;
  const query = new URLSearchParams();
  for (const [parameter, input] of inputs) {
    if (parameter.in === "path") target = target.replace(`{${parameter.name}}`, encodeURIComponent(input.value));
    else if (input.value) query.set(parameter.name, input.value);
  }
  const headers = { Authorization: `Bearer ${byId("token").value.trim()}` };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const response = await fetch(`${target}${query.size ? `?${query}` : ""}`, { method: method.toUpperCase(), headers, body });
  return `${response.status}\n${json(await response.json())}`;
}

// Frames and events ---------------------------------------------------------------------------------------------------

function frameEntry(events, key, message, note) {
  return h("section", { class: "entry", id: key, "aria-labelledby": `${key}-title` },
    h("h3", { id: `${key}-title` }, message.name),
    message.summary ? h("p", null, ...prose(message.summary)) : null,
    message.description ? h("p", null, message.description) : null,
    note ? h("p", null, note) : null,
    h("div", { class: "columns" },
      block("Fields", describe(message.payload, events)),
      block("Example", message.examples.map((example) => json(example.payload)).join("\n\n"))));
}

function answersOf(events, key) {
  const operation = Object.values(events.operations).find((one) =>
    one.reply && one.messages.some((message) => message.$ref.endsWith(`/${key}`)));
  if (!operation) return null;
  const names = operation.reply.messages.map((message) => resolve(message, events).name);
  return `Answered with ${names.join(" or ")}.`;
}

function closeTable(events) {
  const rows = Object.entries(events["x-close-codes"]).map(([code, text]) =>
    h("tr", null, h("td", null, code), h("td", null, ...prose(text))));
  return h("section", { class: "entry", id: "close-codes" }, h("h3", null, "Close codes"), h("table", null, h("tbody", null, ...rows)));
}

// Page ----------------------------------------------------------------------------------------------------------------

function part(title, description, entries) {
  const contents = h("div", null, h("h2", null, title),
    ...entries.map((entry) => h("a", { href: `#${entry.id}` }, entry.querySelector("h3").textContent)));
  byId("contents").append(contents);
  byId("content").append(h("h2", null, title), ...description.split("\n\n").map((text) => h("p", null, ...prose(text))), ...entries);
}

function show(api, events) {
  for (const tag of api.tags) {
    const entries = Object.entries(api.paths).flatMap(([path, calls]) => Object.entries(calls)
      .filter(([, call]) => call.tags.includes(tag.name))
      .map(([method, call]) => callEntry(api, path, method, call)));
    part(`REST: ${tag.name}`, tag.description, entries);
  }
  const messages = Object.entries(events.components.messages);
  const entriesOf = (prefix) => messages.filter(([key]) => key.startsWith(prefix))
    .map(([key, message]) => frameEntry(events, key, message, answersOf(events, key)));
  part("WebSocket: a client sends", events.info.description, entriesOf("client-"));
  part("WebSocket: the server sends", "An answer repeats the `id` of the frame that it answers.", [...entriesOf("server-"), closeTable(events)]);
  part("RabbitMQ: internal services publish", events.channels.events.description, entriesOf("event"));
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

const token = byId("token");
token.value = sessionStorage.getItem(TOKEN) ?? "";
token.addEventListener("change", () => sessionStorage.setItem(TOKEN, token.value));
byId("token-form").addEventListener("submit", (event) => event.preventDefault());
try {
  show(...await Promise.all([load("/v1/openapi.json"), load("/v1/asyncapi.json")]));
} catch (error) {
  byId("problem").textContent = `The documents could not be loaded: ${error.message}`;
}
