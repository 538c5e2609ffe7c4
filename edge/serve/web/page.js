"use strict";
// Texts of a model reach the page through textContent alone: nothing it writes is ever read as HTML.

const $ = (id) => document.getElementById(id);
const log = $("log"), words = $("words"), status = $("status"), model = $("model");
const KEPT = "edge-chat", TOKEN = "edge-token";
const LONGEST_SIDE = 1024; // pixels of a picture that is sent: encoders look at less

let talk = { messages: [] };  // as OpenAI's interface has them
let pictures = [];            // data URLs of the next message
let running = null;           // AbortController of the answer that comes
let known = {};               // models by name

function kept(key) { try { return localStorage.getItem(key); } catch { return null; } }
function keep(key, value) {
  try { localStorage.setItem(key, value); return true; } catch { return false; }
}

function say(text, wrong = false) {
  status.textContent = text;
  status.className = wrong ? "wrong" : "";
}

function headers() {
  const token = kept(TOKEN);
  return { "Content-Type": "application/json", ...(token ? { Authorization: `Bearer ${token}` } : {}) };
}

// ---- drawing

function element(kind, text, className) {
  const made = document.createElement(kind);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function inline(into, text) {
  for (const part of text.split(/(`[^`\n]+`|\*\*[^*\n]+\*\*)/)) {
    if (/^`[^`]+`$/.test(part)) into.append(element("code", part.slice(1, -1)));
    else if (/^\*\*[^*]+\*\*$/.test(part)) into.append(element("strong", part.slice(2, -2)));
    else if (part) into.append(part);
  }
}

function draw(into, text) {
  into.replaceChildren();
  text.split(/^```[^\n]*\n?/m).forEach((part, i) => {
    if (i % 2) {
      const block = element("pre");
      block.tabIndex = 0;
      block.append(element("code", part.replace(/\n$/, "")));
      into.append(block);
    } else if (part.trim() || !i) {
      const made = element("div", undefined, "text");
      inline(made, part.replace(/^\n+|\n+$/g, ""));
      into.append(made);
    }
  });
  if (into.lastChild.tagName === "PRE") into.append(element("div", "", "text"));
}

function show(message) {
  const made = element("article", undefined, message.role);
  made.append(element("span", message.role === "user" ? "You: " : "Model: ", "quiet"));
  const parts = typeof message.content === "string" ? [{ type: "text", text: message.content }] : message.content;
  for (const part of parts) {
    if (part.type === "image_url") {
      const image = element("img");
      image.src = part.image_url.url;
      image.alt = "a picture you sent";
      made.append(image);
    }
  }
  const body = element("div");
  draw(body, parts.filter((p) => p.type === "text").map((p) => p.text).join("\n"));
  made.append(body);
  if (message.note) made.append(element("p", message.note, "note"));
  log.append(made);
  return { made, body };
}

function atEnd() { return log.scrollHeight - log.scrollTop - log.clientHeight < 60; }
function toEnd() { log.scrollTop = log.scrollHeight; }

function redraw() {
  log.replaceChildren();
  talk.messages.forEach(show);
  toEnd();
}

// ---- keeping

function save() {
  if (keep(KEPT, JSON.stringify(talk))) return;
  // Pictures are what takes the room; words are kept without them.
  const lean = talk.messages.map((m) => typeof m.content === "string" ? m : { ...m, content: texts(m.content) });
  keep(KEPT, JSON.stringify({ ...talk, messages: lean }));
}

function texts(content) {
  return typeof content === "string" ? content : content.filter((p) => p.type === "text").map((p) => p.text).join("\n");
}

function load() {
  try {
    const found = JSON.parse(kept(KEPT));
    if (Array.isArray(found?.messages) && found.messages.every((m) => m.role && m.content !== undefined)) talk = found;
  } catch { /* what cannot be read is a new conversation */ }
}

// ---- asking

async function refused(response) {
  let error = {};
  try { error = (await response.json()).error ?? {}; } catch { /* not from our server */ }
  if (response.status === 401) askToken();
  return Object.assign(new Error(error.message ?? `The server answered ${response.status}.`), {
    code: error.code, retry: Number(response.headers.get("Retry-After")) || 0,
  });
}

function askToken() {
  $("key").hidden = false;
  $("token").focus();
}

// The pieces of a stream of server-sent events.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    rest += value;
    const lines = rest.split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data: ")) continue;
      if (line === "data: [DONE]") { yield null; return; }
      const data = JSON.parse(line.slice(6));
      if (data.error) throw new Error(data.error.message);
      yield data;
    }
  }
}

async function answer() {
  running = new AbortController();
  $("send").hidden = true; $("stop").hidden = false;
  log.setAttribute("aria-busy", "true");
  const reply = { role: "assistant", content: "" };
  let first = 0;              // of the messages that the model still sees
  let { made, body } = show(reply);
  made.classList.add("busy");
  toEnd();
  say("");
  try {
    let response;
    for (;;) {
      const messages = talk.messages.slice(first).map(({ role, content }) => ({ role, content }));
      response = await fetch("v1/chat/completions", {
        method: "POST", headers: headers(), signal: running.signal,
        body: JSON.stringify({ model: model.value, messages, stream: true }),
      });
      if (response.ok) break;
      const error = await refused(response);
      // The oldest turns leave what the model sees when the conversation outgrows its context.
      if (error.code === "context_length_exceeded" && first + 2 < talk.messages.length) { first += 2; continue; }
      if (error.retry && response.status !== 503) {
        say(`${error.message}. Trying again in ${error.retry} s.`);
        await new Promise((go, halt) => {
          setTimeout(go, error.retry * 1000);
          running.signal.addEventListener("abort", () => halt(new DOMException("", "AbortError")));
        });
        say("");
        continue;
      }
      throw error;
    }
    let ended = false;
    for await (const event of events(response)) {
      if (event === null) { ended = true; break; }
      const choice = event.choices[0];
      const follow = atEnd();
      reply.content += choice?.delta?.content ?? "";
      if (choice?.finish_reason === "length") reply.note = "The answer was cut: it reached its longest length.";
      draw(body, reply.content);
      if (follow) toEnd();
    }
    if (!ended) throw new Error("The server hung up before the answer was complete.");
  } catch (error) {
    if (error.name === "AbortError") reply.note = "Stopped.";
    else say(error instanceof TypeError ? "The server cannot be reached." : error.message, true);
  }
  if (first) reply.note = [reply.note, `The model no longer sees the first ${first} messages.`].filter(Boolean).join(" ");
  made.remove();
  if (reply.content || reply.note === "Stopped.") {
    talk.messages.push(reply);
    ({ made } = show(reply));
  } else if (talk.messages.at(-1)?.role === "user") {
    // What was not answered goes back to where it was written.
    const asked = talk.messages.pop();
    log.lastChild?.remove();
    if (!words.value) { words.value = texts(asked.content); fit(); }
    if (typeof asked.content !== "string") {
      pictures = asked.content.filter((p) => p.type === "image_url").map((p) => p.image_url.url);
      drawPictures();
    }
  }
  save();
  log.removeAttribute("aria-busy");
  $("send").hidden = false; $("stop").hidden = true;
  running = null;
}

function send() {
  const text = words.value.trim();
  if (running || !text) return;
  const content = pictures.length
    ? [...pictures.map((url) => ({ type: "image_url", image_url: { url } })), { type: "text", text }]
    : text;
  talk.messages.push({ role: "user", content });
  show(talk.messages.at(-1));
  save();
  words.value = ""; pictures = [];
  drawPictures(); fit();
  answer();
}

// ---- pictures

async function add(files) {
  if (!known[model.value]?.vision) return;
  for (const file of files) {
    if (!file.type.startsWith("image/")) { say(`${file.name} is no picture.`, true); continue; }
    try {
      const image = await createImageBitmap(file);
      const scale = Math.min(1, LONGEST_SIDE / Math.max(image.width, image.height));
      const canvas = document.createElement("canvas");
      canvas.width = Math.max(1, Math.round(image.width * scale));
      canvas.height = Math.max(1, Math.round(image.height * scale));
      const pen = canvas.getContext("2d");
      pen.fillStyle = "white"; // what is transparent
      pen.fillRect(0, 0, canvas.width, canvas.height);
      pen.drawImage(image, 0, 0, canvas.width, canvas.height);
      // Lossless where that is small: drawings and screens suffer from JPEG.
      const png = canvas.toDataURL("image/png");
      pictures.push(png.length < 400_000 ? png : canvas.toDataURL("image/jpeg", 0.9));
      say("");
    } catch { say(`${file.name} cannot be read.`, true); }
  }
  drawPictures();
}

function drawPictures() {
  $("pictures").replaceChildren(...pictures.map((url, i) => {
    const made = element("li"), image = element("img"), away = element("button", "\u00d7");
    image.src = url; image.alt = `picture ${i + 1}`;
    away.type = "button"; away.setAttribute("aria-label", `Remove picture ${i + 1}`);
    away.onclick = () => { pictures.splice(i, 1); drawPictures(); words.focus(); };
    made.append(image, away);
    return made;
  }));
}

// ---- the page

function fit() {
  words.style.height = "auto";
  words.style.height = `${words.scrollHeight + 2}px`;
}

async function begin() {
  try {
    const response = await fetch("v1/models", { headers: headers() });
    if (!response.ok) throw await refused(response);
    const { data } = await response.json();
    known = Object.fromEntries(data.filter((m) => m.edge.chat).map((m) => [m.id, m.edge]));
    model.replaceChildren(...Object.keys(known).map((name) => element("option", name)));
    if (known[talk.model]) model.value = talk.model;
    model.disabled = Object.keys(known).length < 2;
    $("key").hidden = true;
    say(model.value ? "" : "No model here was made for chat.");
    chosen();
  } catch (error) {
    say(error instanceof TypeError ? "The server cannot be reached." : error.message, true);
  }
}

function chosen() {
  talk.model = model.value;
  $("attach").hidden = !known[model.value]?.vision;
  document.title = model.value || "edge";
}

$("ask").addEventListener("submit", (event) => { event.preventDefault(); send(); });
$("key").addEventListener("submit", (event) => {
  event.preventDefault();
  keep(TOKEN, $("token").value.trim());
  $("token").value = "";
  begin();
});
$("stop").addEventListener("click", () => { running?.abort(); words.focus(); });
$("new").addEventListener("click", () => {
  running?.abort();
  talk = { messages: [], model: model.value };
  save(); redraw(); say(""); words.focus();
});
$("attach").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", async () => { await add($("file").files); $("file").value = ""; words.focus(); });
model.addEventListener("change", () => { chosen(); save(); });
words.addEventListener("input", fit);
words.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); send(); }
});
document.addEventListener("keydown", (event) => { if (event.key === "Escape") running?.abort(); });
document.addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])];
  if (files.length) { event.preventDefault(); add(files); }
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.toggle("dropping", !$("attach").hidden);
});
document.addEventListener("dragleave", () => document.body.classList.remove("dropping"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  add([...event.dataTransfer.files]);
});

// A link with the token in its fragment, which browsers keep to themselves.
const linked = new URLSearchParams(location.hash.slice(1)).get("token");
if (linked) {
  keep(TOKEN, linked);
  history.replaceState(null, "", location.pathname);
}
load();
redraw();
begin();
