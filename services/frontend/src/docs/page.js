// Shows /openapi.json. Text of the document becomes text of the page (textContent), never markup.
"use strict";

const METHODS = ["get", "post", "put", "patch", "delete"];

function node(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

// `code` in descriptions, and a paragraph for each empty line.
function prose(text) {
  return (text ?? "").split("\n\n").filter(Boolean).map((paragraph) =>
    node("p", {}, ...paragraph.split("`").map((part, at) => (at % 2 ? node("code", { textContent: part }) : part))));
}

function inline(text) {
  return node("span", {}, ...(text ?? "").split("`").map((part, at) => (at % 2 ? node("code", { textContent: part }) : part)));
}

function resolver(api) {
  return (schema) => {
    let found = schema ?? {};
    while (found.$ref) {
      found = found.$ref.slice(2).split("/").reduce((at, name) => at[name], api);
    }
    return found;
  };
}

// What a value of the schema may look like.
function example(schema, resolve, depth = 0) {
  const found = resolve(schema);
  if (found.example !== undefined) return found.example;
  if (found.examples?.length) return found.examples[0];
  if (found.default !== undefined) return found.default;
  if (found.enum) return found.enum[0];
  const choice = (found.oneOf ?? found.anyOf ?? []).find((one) => resolve(one).type !== "null");
  if (choice) return example(choice, resolve, depth);
  if (found.allOf) return Object.assign({}, ...found.allOf.map((part) => example(part, resolve, depth)));
  const type = Array.isArray(found.type) ? found.type.find((one) => one !== "null") : found.type;
  if (type === "object" || found.properties) {
    const fields = Object.entries(found.properties ?? {});
    return depth > 6 ? {} : Object.fromEntries(fields.map(([name, field]) => [name, example(field, resolve, depth + 1)]));
  }
  if (type === "array") return found.items && depth < 6 ? [example(found.items, resolve, depth + 1)] : [];
  return { string: "…", integer: found.minimum ?? 0, number: found.minimum ?? 0, boolean: false }[type] ?? null;
}

// The rules of a value in one line.
function rules(schema, resolve) {
  const found = resolve(schema);
  const choices = found.oneOf ?? found.anyOf;
  if (choices) return choices.map((one) => rules(one, resolve)).join(" or ");
  const parts = [[].concat(found.type ?? []).join(" or ")];
  if (found.type === "array" && found.items) parts.push(`of ${rules(found.items, resolve)}`);
  if (found.enum) parts.push(found.enum.join(" | "));
  if (found.minimum !== undefined) parts.push(`≥ ${found.minimum}`);
  if (found.maximum !== undefined) parts.push(`≤ ${found.maximum}`);
  if (found.maxLength !== undefined) parts.push(`${found.minLength ?? 0} to ${found.maxLength} characters`);
  if (found.pattern) parts.push(found.pattern);
  if (found.default !== undefined) parts.push(`default ${found.default}`);
  return parts.filter(Boolean).join(", ");
}

function table(rows) {
  return node("table", {}, ...rows.map(([name, about, text]) => node("tr", {},
    node("th", {}, node("code", { textContent: name })), node("td", { className: "soft", textContent: about }), node("td", {}, inline(text)))));
}

function fields(schema, resolve) {
  const found = resolve(schema);
  if (found.oneOf) return node("div", {}, ...found.oneOf.map((one) => fields(one, resolve)));
  const rows = Object.entries(found.properties ?? {}).map(([name, field]) => {
    const needed = found.required?.includes(name) ? "" : "optional: ";
    return [name, needed + rules(field, resolve), field.description ?? resolve(field).description];
  });
  return rows.length ? table(rows) : null;
}

function json(value) {
  return node("pre", { textContent: JSON.stringify(value, null, 2) });
}

function curl(method, path, operation, body) {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const parts = ["curl -s"];
  if (method !== "get" && method !== "post") parts.push(`-X ${method.toUpperCase()}`);
  parts.push(quoted(location.origin + path));
  if (operation.security) parts.push(`-H "Authorization: Bearer $TOKEN"`);
  if (operation.parameters?.some((one) => one.name === "Idempotency-Key")) parts.push(`-H "Idempotency-Key: $(uuidgen)"`);
  if (body) parts.push(`-d ${quoted(JSON.stringify(body))}`);
  return node("pre", { textContent: parts.join(" ") });
}

function response(status, told, resolve) {
  const [type, content] = Object.entries(told.content ?? {})[0] ?? [];
  const summary = node("summary", {}, node("span", { className: `method ${status >= "400" ? "refused" : ""}`, textContent: status }), inline(told.description));
  const shown = node("details", {}, summary);
  const headers = Object.entries(told.headers ?? {}).map(([name, header]) => [name, rules(header.schema, resolve), header.description]);
  if (headers.length) shown.append(table(headers));
  const examples = Object.values(content?.examples ?? {}).map((one) => one.value);
  for (const one of examples) shown.append(node("pre", { textContent: JSON.stringify(one) }));
  if (content && !examples.length) {
    const data = type === "application/json" ? resolve(content.schema).properties?.data : undefined;
    if (data) shown.append(fields(data.items ?? data, resolve) ?? "");
    shown.append(type === "application/json" ? json(example(content.schema, resolve)) : node("p", { textContent: type }));
  }
  shown.open = status.startsWith("2");
  return shown;
}

function operation(method, path, told, resolve) {
  const shown = node("section", { id: told.operationId },
    node("h3", {}, node("span", { className: "method", textContent: method.toUpperCase() }), node("code", { textContent: path }), ` ${told.summary}`),
    ...prose(told.description));
  if (told.parameters?.length) {
    shown.append(node("h4", { textContent: "Parameters" }), table(told.parameters.map((one) =>
      [one.name, `${one.in}, ${one.required ? "" : "optional: "}${rules(one.schema, resolve)}`, one.description])));
  }
  const schema = told.requestBody?.content["application/json"].schema;
  const body = schema && example(schema, resolve);
  if (schema) shown.append(node("h4", { textContent: "Body" }), fields(schema, resolve) ?? "");
  shown.append(node("h4", { textContent: "Try" }), curl(method, path, told, body), node("h4", { textContent: "Answers" }));
  for (const [status, one] of Object.entries(told.responses)) shown.append(response(status, one, resolve));
  return shown;
}

function show(api) {
  const resolve = resolver(api);
  const main = document.getElementById("document");
  const contents = document.getElementById("contents");
  main.replaceChildren(node("h1", { textContent: `${api.info.title} ${api.info.version}` }), ...prose(api.info.description),
    node("p", {}, "The same for programs: ", node("a", { href: "/openapi.json", textContent: "/openapi.json" })));
  for (const tag of api.tags) {
    main.append(node("h2", { textContent: tag.name }), ...prose(tag.description));
    contents.append(node("h2", { textContent: tag.name }));
    for (const [path, item] of Object.entries(api.paths)) {
      for (const method of METHODS.filter((one) => item[one]?.tags?.includes(tag.name))) {
        main.append(operation(method, path, item[method], resolve));
        contents.append(node("a", { href: `#${item[method].operationId}`, title: item[method].summary },
          node("span", { className: "method", textContent: method.toUpperCase() }), path));
      }
    }
  }
  document.title = `${api.info.title} ${api.info.version}`;
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

fetch("/openapi.json")
  .then((answer) => (answer.ok ? answer.json() : Promise.reject(new Error(`/openapi.json: ${answer.status}`))))
  .then(show)
  .catch((error) => document.getElementById("document").replaceChildren(node("p", { textContent: `The document can't be shown: ${error.message}` })));
