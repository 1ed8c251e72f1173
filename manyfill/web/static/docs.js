// The API as OpenAPI describes it, to read.

import { find, make } from "./dom.js";

const CURL = `curl -F image=@photo.png -F mask=@mask.png -F n=8 -F seed=0 ${location.origin}/api/v1/fill -o fills.zip`;

function kind(schema = {}) {
  if (schema.anyOf) return schema.anyOf.filter(({ type }) => type !== "null").map(kind).join(" or ");
  if (schema.enum) return schema.enum.join(" or ");
  if (schema.format === "binary" || schema.contentMediaType) return "file";
  const [least, most] = [schema.minimum, schema.maximum];
  return `${schema.type ?? ""}${least !== undefined ? `, ${least} to ${most ?? "any"}` : ""}`;
}

function row(name, schema, required, description) {
  const optional = schema.default === undefined ? (required ? "needed" : "") : `default ${schema.default}`;
  return make("tr", {}, ...[make("code", {}, name), kind(schema), optional, (description ?? "").replaceAll("`", "")].map((cell) => make("td", {}, cell)));
}

function fields(operation, schemas) {
  const rows = (operation.parameters ?? []).map(({ name, schema, required, description }) => row(name, schema, required, description));
  const reference = Object.values(operation.requestBody?.content ?? {})[0]?.schema?.$ref;
  const body = reference && schemas[reference.split("/").at(-1)];
  for (const [name, schema] of Object.entries(body?.properties ?? {})) {
    rows.push(row(name, schema, body.required?.includes(name), schema.description));
  }
  if (!rows.length) return "";
  const head = make("tr", {}, ...["Field", "Kind", "Default", "What it is"].map((text) => make("th", {}, text)));
  return make("div", { className: "wide", tabIndex: 0 }, make("table", {}, head, ...rows));
}

const token = sessionStorage.getItem("token");
const answer = await fetch("/openapi.json", { headers: token ? { Authorization: `Bearer ${token}` } : {} });
const place = find("#operations");
if (answer.ok) {
  const { info, paths, components } = await answer.json();
  find("#about").textContent = info.description.replaceAll("`", "");
  find("#curl").textContent = CURL;
  find("#curl").tabIndex = 0;
  place.replaceChildren();
  for (const [path, operations] of Object.entries(paths)) {
    for (const [method, operation] of Object.entries(operations)) {
      const title = make("h2", {}, make("b", {}, method.toUpperCase()), make("code", {}, path));
      const answers = operation.responses[200]?.description;
      const told = answers && answers !== "Successful Response" ? make("p", {}, answers) : "";
      place.append(make("article", {}, title, make("p", {}, operation.description), told, fields(operation, components.schemas)));
    }
  }
} else place.replaceChildren(make("p", {}, "The server asks for its token: open the page first, then come back."));
