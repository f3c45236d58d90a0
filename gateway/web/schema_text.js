/** JSON schemas as readable text: `{id: string, name?: string}`, with bounds and descriptions. */

/** Return the text of a schema; `root` is the document that its references resolve in. */
export function describe(schema, root, indent = "") {
  if (schema.$ref) return describe(find(schema.$ref, root), root, indent);
  if ("const" in schema) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((word) => JSON.stringify(word)).join(" | ");
  const options = schema.anyOf ?? schema.oneOf;
  if (options) return [...new Set(options.map((option) => describe(option, root, indent)))].join(" | ");
  if (schema.type === "array") return `[${describe(schema.items ?? {}, root, indent)}, …]${bounds(schema.minItems, schema.maxItems)}`;
  if (schema.type === "object") return object(schema, root, indent);
  return (schema.format ?? schema.type ?? "anything") + limits(schema);
}

function find(reference, root) {
  return reference.slice(2).split("/").reduce((at, step) => at[step], root);
}

function object(schema, root, indent) {
  const inner = `${indent}  `;
  const required = new Set(schema.required ?? []);
  const fields = Object.entries(schema.properties ?? {}).map(([name, field]) =>
    `${inner}${name}${required.has(name) ? "" : "?"}: ${describe(field, root, inner)}`);
  return fields.length ? `{\n${fields.join("\n")}\n${indent}}` : "{…}";
}

function limits(schema) {
  const length = bounds(schema.minLength, schema.maxLength);
  const value = bounds(schema.minimum ?? schema.exclusiveMinimum, schema.maximum);
  const fallback = schema.default === undefined || schema.default === null ? "" : ` = ${JSON.stringify(schema.default)}`;
  return length + value + fallback;
}

function bounds(least, most) {
  if (least === undefined && most === undefined) return "";
  return ` (${least ?? ""}–${most ?? ""})`;
}
