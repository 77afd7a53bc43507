// The editor: what the user does becomes the event "act" with a `kind` and its details, and what is
// shown comes back from the server as the component's value. Frames are fetched by the browser
// itself, so that scrubbing and clicking never send a picture twice.
// Gradio runs this once with `element`, `trigger`, `props` and `watch` at hand.

const DRAG = 6; // screen pixels from which a click is a drag
const LOOKING = { frame: "Looking at the frame", closer: "Looking closer" };
const FATES = { track: "Follow", segment: "Cut out", remove: "Paint away" };

const ICONS = {
  play: "M4 2l9 6-9 6z", stop: "M4 2h3v12H4zM9 2h3v12H9z",
  seen: "M1 8q7-9 14 0-7 9-14 0zM8 10.4a2.4 2.4 0 1 0 0-4.8 2.4 2.4 0 0 0 0 4.8z", unseen: "M1 8q7-9 14 0M3 14L13 2",
  unmark: "M8 2l6 6-6 6-6-6zM3 3l10 10", remove: "M3 3l10 10M13 3L3 13",
};
const icon = (name) => `<svg><path d="${ICONS[name]}"/></svg>`;

const find = (selector) => element.querySelector(selector);
const all = (selector) => [...element.querySelectorAll(selector)];
const make = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in node && name !== "list") node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
};
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

let value = null; // what the server showed last
let tool = "plus";
let press = null; // where the button went down
let stroke = null; // what is being painted, pixels of the video
let local = null; // the frame that is shown ahead of the server's answer
let zoom = { scale: 1, x: 0, y: 0 }; // x, y: shift in shares of the stage
let curves = { version: 0, things: [] };
let playing = null;
let scrubbing = false;
let aim = null; // where the cross is that the keyboard points with
let typing = false; // a frame's number, which no answer is to overwrite
let end = null; // the end of the range that is being dragged
let survey = null; // { url, pixels }: which object lies on which pixel, for picking
let scope = null; // { from, to }: the frames that the timeline shows, if not all of them
let watching = false; // what the run makes is shown in the picture's place
let watched = null; // the timer that asks for it
let searching = null; // how many searches were over when the one under way began
let pointed = 0; // the one under the pointer, from 1

/** Tell the server; should its answer take a while, say that it is being worked on. */
function act(kind, details = {}) {
  clearTimeout(resting);
  clearTimeout(waiting);
  waiting = setTimeout(() => badge("Working"), 600);
  trigger("act", { kind, ...details });
}
/** Ask for something in answer to an answer. Gradio (6.31) closes its connection behind the last
    answer, and what is asked in that moment is lost with it. */
const ask = (event) => setTimeout(() => trigger(event, {}), 50);
let waiting = null;
let resting = null;
let asking = null;
function badge(text) {
  find(".badge").hidden = !text;
  find(".badge").textContent = text;
}
/** Until what was found can be picked, which is a moment after the answer. */
const surveying = () => tool === "pick" && (!value.survey || survey?.url !== value.survey);
const showBadge = () =>
  badge(surveying() ? "Finding everything" : searching !== null ? "Looking everywhere" : LOOKING[value.looking]);
const shown = () => local ?? value.index;
const frameUrl = (index) => `media/${value.session}/frame/${index}.jpg`;

// ------------------------------------------------------------------------------------ the picture

/** Pixel of the video under a pointer event, kept inside the frame. */
function pixel(event) {
  const area = find(".film").getBoundingClientRect();
  const inside = (offset, length, pixels) => clamp(Math.floor((offset / length) * pixels), 0, pixels - 1);
  return {
    x: inside(event.clientX - area.left, area.width, value.width),
    y: inside(event.clientY - area.top, area.height, value.height),
  };
}

const place = (box) =>
  `left: ${(100 * box[0]) / value.width}%; top: ${(100 * box[1]) / value.height}%;` +
  `width: ${(100 * (box[2] - box[0])) / value.width}%; height: ${(100 * (box[3] - box[1])) / value.height}%`;

/** Mark what is being done: a pulsing dot, or the box that is being dragged. */
function mark(kind, from, to) {
  const marks = find(".marks");
  let sign = marks.querySelector(".pending");
  if (!sign) sign = marks.appendChild(make("i"));
  sign.className = `pending ${kind}`;
  const box = [Math.min(from.x, to.x), Math.min(from.y, to.y), Math.max(from.x, to.x), Math.max(from.y, to.y)];
  sign.style.cssText = kind === "box" ? place(box) : place([to.x + 0.5, to.y + 0.5, to.x + 0.5, to.y + 0.5]);
  if (kind === "dot") sign.style.width = sign.style.height = "";
}

function showFrame(index) {
  const picture = find("img.frame");
  const url = frameUrl(index);
  if (!picture.src.endsWith(url)) picture.src = url;
  if (!typing) find("#frame input").value = index;
  find(".clock").textContent = `of ${value.count - 1}, ${(index / value.fps).toFixed(2)} s`;
  find(".stage").setAttribute("aria-label", `Frame ${index} of ${value.count - 1}. Click the object; the arrow keys change the frame, with Alt they move a cross to point with.`);
  drawTimeline();
}

/** Show another frame at once, and tell the server when the user has come to rest there. */
let telling = null;
function seek(index, delay = 90) {
  searching = null; // what it finds is not shown elsewhere
  if (watching) watchRun(false);
  find("#again").hidden = true;
  local = clamp(Math.round(index) || 0, 0, value.count - 1);
  find(".layers").replaceChildren();
  find(".marks").replaceChildren();
  find(".lines").replaceChildren();
  showFrame(local);
  clearTimeout(telling);
  telling = setTimeout(() => act("seek", { index: local }), delay);
}

function setZoom(scale, at = { x: 0.5, y: 0.5 }) {
  const next = clamp(scale, 1, 12);
  // The point under the pointer stays where it is.
  zoom.x = at.x - ((at.x - zoom.x) * next) / zoom.scale;
  zoom.y = at.y - ((at.y - zoom.y) * next) / zoom.scale;
  zoom.scale = next;
  find(".stage").style.touchAction = draws() || next > 1 ? "none" : "pan-y";
  pan(0, 0);
}

function pan(x, y) {
  zoom.x = clamp(zoom.x + x, 1 - zoom.scale, 0);
  zoom.y = clamp(zoom.y + y, 1 - zoom.scale, 0);
  find(".film").style.transform = `translate(${100 * zoom.x}%, ${100 * zoom.y}%) scale(${zoom.scale})`;
}

// ---------------------------------------------------------------------------------- what is shown

/** Another video: nothing of how the last one was looked at is left. */
function beginAnew() {
  local = survey = aim = press = stroke = end = searching = null;
  curves = { version: 0, things: [] };
  if (playing) play();
  setZoom(1);
  setScope(0, value.count);
  if (tool !== "plus") markTool("plus");
  if (innerWidth < 860) find(".title").scrollIntoView({ behavior: "smooth" });
}

function render() {
  // Answers may overtake each other; what is older than what is shown says nothing new.
  if (value && props.value?.session === value.session && props.value.stamp < value.stamp) return;
  const before = value;
  value = props.value;
  clearTimeout(waiting);
  find(".empty").hidden = !!value;
  find(".bench").hidden = !value;
  if (!value) return badge("");
  if (before?.session !== value.session) beginAnew();
  // The address names the project, to be kept or opened elsewhere; the browser's back button leads
  // to the one before.
  const address = `?project=${value.session}`;
  if (location.search !== address) history[before ? "pushState" : "replaceState"](history.state, "", address);
  if (local === value.index) local = null;
  const stage = find(".stage");
  stage.style.aspectRatio = `${value.width} / ${value.height}`;
  stage.style.setProperty("--ratio", value.width / value.height);
  find("#frame input").max = value.count - 1;
  if (local === null) {
    showFrame(value.index);
    const masks = value.things.filter((t) => t.shown && t.mask).map((t) => t.mask);
    if (masks.join() !== [...find(".layers").children].map((image) => image.src).join()) {
      find(".layers").replaceChildren(...masks.map((src) => make("img", { className: "mask", src, alt: "", draggable: false })));
    }
    showLines();
    find(".marks").replaceChildren(...value.things.filter((t) => t.shown).flatMap(signs));
    clearStrokes();
    pointed = 0;
  }
  find(".note").textContent = value.note;
  find(".project").href = `media/${value.session}/project.zip`;
  if (value.searches !== searching) searching = null;
  const again = find("#again");
  again.hidden = !value.again || local !== null;
  again.disabled = searching !== null;
  showBadge();
  clearInterval(asking);
  if (surveying()) asking = setInterval(tellSurvey, 400);
  // As long as it says so here, somebody has been asked to look.
  if (value.looking === "frame") ask("prepare");
  // A closer look takes as long as a new frame: not between two clicks, but when the hand rests.
  clearTimeout(resting);
  if (value.looking === "closer") resting = setTimeout(() => trigger("rest", {}), 500);
  if (!!before?.running !== value.running || before.session !== value.session) watchRun(value.running);
  readSurvey();
  find("#undo").disabled = !value.undo;
  find("#redo").disabled = !value.redo;
  find("#clear").disabled = !value.things.some((t) => t.id === value.active && t.keys.length);
  showCandidates();
  showThings();
  if (curves.version !== value.curves || curves.things.length !== value.things.length) fetchCurves();
  drawTimeline();
}

/** What will be painted over, as a dashed line; where soft edges begin and end, as dotted ones. */
function showLines() {
  const line = (kind, path, color = "") => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", "path");
    node.setAttribute("class", kind);
    node.setAttribute("d", path);
    node.style.stroke = color;
    return node;
  };
  find(".lines").setAttribute("viewBox", `0 0 ${value.width} ${value.height}`);
  find(".lines").replaceChildren(
    ...value.things.filter((t) => t.shown && t.fade).map((t) => line("fade", t.fade, t.color)),
    ...(value.hole ? [line("under", value.hole), line("hole", value.hole)] : []),
  );
}

function signs(thing) {
  const active = thing.id === value.active;
  const marks = [];
  if (thing.box.length) {
    const box = make("i", { className: `box${active ? " active" : ""}` });
    box.style.cssText = place(thing.box) + `; border-color: ${thing.color}`;
    const inside = thing.box[1] < value.height / 12 ? "inside" : ""; // or it would be cut off
    if (value.things.length > 1) box.append(make("b", { textContent: thing.name, className: inside }));
    marks.push(box);
  }
  if (active) {
    for (const [x, y, label] of thing.points) {
      const dot = make("i", { className: `dot ${label ? "on" : "off"}` });
      dot.style.cssText = `left: ${(100 * x) / value.width}%; top: ${(100 * y) / value.height}%`;
      marks.push(dot);
    }
  }
  return marks;
}

// What is shown anew is changed in place: an answer may come while somebody types a name, holds a
// button down, or walks through them with the keyboard.

/** Tab goes to the choice that counts. */
function rove(group) {
  const choices = [...group.querySelectorAll("[role=radio]")];
  const checked = choices.find((choice) => choice.ariaChecked === "true") ?? choices[0];
  choices.forEach((choice) => (choice.tabIndex = choice === checked ? 0 : -1));
}

function showCandidates() {
  const { count, chosen } = value.candidates;
  const group = find(".candidates");
  group.hidden = count < 2;
  if (group.children.length !== count) {
    group.replaceChildren(
      ...[...Array(count).keys()].map((number) =>
        make("button", {
          type: "button", textContent: ["Part", "More", "Whole"][number] ?? number + 1, role: "radio",
          title: `Mask ${number + 1} of ${count} that may be meant, from the smallest (${number + 1})`,
          onclick: () => act("choose", { frame: value.index, number }),
        }),
      ),
    );
  }
  [...group.children].forEach((button, number) => (button.ariaChecked = number === chosen));
  rove(group);
}

function newRow(id) {
  const thing = () => value.things.find((t) => t.id === id);
  const button = (className, press, details = {}) => make("button", { type: "button", className, onclick: press, ...details });
  const row = make(
    "li", { "data-id": id },
    make("input", { type: "color", title: "Colour", onchange: (e) => act("recolor", { number: id, color: e.target.value }) }),
    make("input", { type: "text", className: "name", maxLength: 40, onchange: (e) => act("rename", { number: id, name: e.target.value }) }),
    make("span", { className: "group fate", role: "radiogroup" },
      ...Object.entries(FATES).map(([fate, text]) => button("", () => act("decide", { number: id, do: fate }), { role: "radio", "data-fate": fate, textContent: text }))),
    make("span", { className: "state" }),
    button("eye", () => act("show", { number: id, shown: !thing().shown })),
    button("unmark", () => act("unmark", { number: id, frame: value.index }), { title: "Take away the key frame on this frame", innerHTML: icon("unmark") }),
    button("delete", () => act("delete", { number: id }), { title: "Delete", innerHTML: icon("remove") }),
  );
  row.addEventListener("click", (event) => {
    if (event.target.closest("input, button") || id === value.active) return;
    act("select", { number: id });
  });
  return row;
}

function showRow(row, thing) {
  const part = (selector) => row.querySelector(selector);
  const [color, name, eye] = [part("[type=color]"), part(".name"), part(".eye")];
  row.className = thing.id === value.active ? "active" : "";
  if (document.activeElement !== color) color.value = thing.color;
  if (document.activeElement !== name) name.value = thing.name;
  color.ariaLabel = `Colour of ${thing.name}`;
  name.ariaLabel = `Name of object ${thing.id}`;
  part(".fate").ariaLabel = `What happens to ${thing.name}`;
  row.querySelectorAll(".fate button").forEach((fate) => (fate.ariaChecked = fate.dataset.fate === thing.do));
  rove(part(".fate"));
  part(".state").className = thing.lost ? "state lost" : "state";
  part(".state").textContent = thing.lost ? "lost here" : thing.key ? "key frame" : thing.score === null ? "" : `score ${thing.score.toFixed(2)}`;
  eye.ariaPressed = thing.shown;
  eye.title = thing.shown ? "Hide" : "Show";
  eye.ariaLabel = `${eye.title} ${thing.name}`;
  eye.innerHTML = icon(thing.shown ? "seen" : "unseen");
  part(".unmark").disabled = !thing.key;
  part(".unmark").ariaLabel = `Take away the key frame of ${thing.name} here`;
  part(".delete").ariaLabel = `Delete ${thing.name}`;
}

function showThings() {
  const list = find(".things");
  const rows = new Map([...list.children].map((row) => [Number(row.dataset.id), row]));
  const ids = new Set(value.things.map((thing) => thing.id));
  rows.forEach((row, id) => ids.has(id) || row.remove());
  value.things.forEach((thing, place) => {
    const row = rows.get(thing.id) ?? newRow(thing.id);
    if (list.children[place] !== row) list.insertBefore(row, list.children[place] ?? null);
    showRow(row, thing);
  });
  find(".add").hidden = !value.things.some((thing) => thing.keys.length);
}

// ------------------------------------------------------------------------------------ the timeline

async function fetchCurves() {
  const version = value.curves;
  curves = { ...curves, version };
  const answer = await fetch(`media/${value.session}/curves.json?v=${version}`);
  if (answer.ok) curves = { version, things: (await answer.json()).things };
  find("#doubt").hidden = !doubts().length;
  drawTimeline();
}

/** Frames to look at: the first of each span in which something is lost or doubtful. */
function doubts() {
  const frames = new Set();
  for (const thing of curves.things) {
    const bad = thing.lost.slice();
    for (const frame of thing.doubtful) bad[frame] = true;
    bad.forEach((is, frame) => is && !bad[frame - 1] && frames.add(frame));
  }
  return [...frames].sort((a, b) => a - b);
}

/** What lies under the pointer, in words. */
function tell(frame) {
  const facts = value.things.map((thing) => {
    const data = curves.things.find((t) => t.id === thing.id);
    if (!data || data.scores[frame] == null) return "";
    const state = data.lost[frame] ? "lost" : data.scores[frame].toFixed(2) + (data.doubtful.includes(frame) ? ", mask doubtful" : "");
    return `${thing.name} ${state}`;
  });
  find(".timeline").title = [`Frame ${frame}`, ...facts.filter(Boolean)].join("; ");
}

const MIN_SCOPE = 20; // frames

/** Show a part of the video on the timeline, inside of what there is; nothing: all of it. */
function setScope(from, length) {
  const frames = clamp(length, Math.min(MIN_SCOPE, value.count), value.count);
  const start = clamp(from, 0, value.count - frames);
  scope = frames < value.count ? { from: start, to: start + frames } : null;
  find("#zoom").ariaPressed = scope !== null;
  drawTimeline();
}

/** The chosen part with a little on both sides; without one, what is around the shown frame. */
function toggleScope() {
  const chosen = value.stop - value.start;
  if (scope) setScope(0, value.count);
  else if (chosen < value.count) setScope(value.start - 0.05 * chosen, 1.1 * chosen);
  else setScope(shown() - value.count / 16, value.count / 8);
}

/** The frames that the timeline shows; it goes along with the one that is shown. */
function scopeNow() {
  if (!scope) return { from: 0, to: value.count };
  const length = scope.to - scope.from;
  if (shown() < scope.from || shown() + 1 > scope.to) {
    const from = clamp(shown() - length / 2, 0, value.count - length);
    scope = { from, to: from + length };
  }
  return scope;
}

/** One lane per object: how sure the tracker is, where it is lost, and the key frames. */
function drawTimeline() {
  const canvas = find(".timeline");
  const width = canvas.clientWidth;
  if (!value || !width) return;
  const [head, lane] = [22, 26];
  const height = head + 2 + lane * Math.max(1, value.things.length);
  const ratio = window.devicePixelRatio || 1;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  canvas.style.height = `${height}px`;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  const style = getComputedStyle(element);
  const ink = style.getPropertyValue("--body-text-color-subdued") || "#888";
  const { from: first, to: last } = scopeNow();
  const edge = (frame) => ((frame - first) / (last - first)) * width;
  const x = (frame) => edge(frame + 0.5);
  const one = edge(first + 1); // pixels of a frame
  pen.fillStyle = style.getPropertyValue("--background-fill-secondary") || "#eee";
  pen.fillRect(0, 0, width, height);
  const accent = style.getPropertyValue("--primary-500") || "#14b8a6";
  const [from, to] = [edge(value.start), edge(value.stop)];
  pen.globalAlpha = 0.12;
  pen.fillStyle = accent; // what is worked on
  pen.fillRect(from, 0, to - from, height);
  pen.globalAlpha = 1;
  value.things.forEach((thing, row) => {
    const top = head + row * lane;
    const data = curves.things.find((t) => t.id === thing.id);
    if (data) {
      pen.fillStyle = "#dc262644";
      data.lost.forEach((lost, frame) => lost && pen.fillRect(edge(frame), top, Math.max(1, one), lane - 4));
      pen.fillStyle = "#d97706";
      for (const frame of data.doubtful) pen.fillRect(edge(frame), top + lane - 8, Math.max(2, one), 4);
      pen.strokeStyle = pen.fillStyle = thing.color;
      pen.lineWidth = 1.5;
      pen.beginPath();
      let drawing = false;
      data.scores.forEach((score, frame) => {
        if (score === null) return void (drawing = false);
        const y = top + (lane - 5) * (1 - score);
        drawing ? pen.lineTo(x(frame), y) : pen.moveTo(x(frame), y);
        drawing = true;
      });
      pen.stroke();
    }
    pen.fillStyle = thing.color;
    for (const frame of thing.keys) {
      pen.save();
      pen.translate(x(frame), top + lane / 2 - 2);
      pen.rotate(Math.PI / 4);
      pen.fillRect(-4, -4, 8, 8);
      pen.strokeStyle = "#fff";
      pen.strokeRect(-4, -4, 8, 8);
      pen.restore();
    }
  });
  pen.globalAlpha = 0.55;
  pen.fillStyle = style.getPropertyValue("--background-fill-secondary") || "#eee"; // what is not fades
  pen.fillRect(0, 0, from, height);
  pen.fillRect(to, 0, width - to, height);
  pen.globalAlpha = 1;
  pen.fillStyle = accent;
  pen.fillRect(from, 0, to - from, 3);
  for (const frame of [value.start, value.stop]) { // to be dragged
    if (frame >= first && frame <= last) pen.fillRect(clamp(edge(frame) - 4, 0, width - 8), 0, 8, 8);
  }
  pen.fillStyle = ink;
  pen.font = "10px sans-serif";
  const step = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000].find((s) => s * one > 46) ?? 50000;
  for (let frame = Math.ceil(first / step) * step; frame < last; frame += step) pen.fillText(frame, Math.min(x(frame) + 2, width - 24), 18);
  if (scope) pen.fillRect((first / value.count) * width, height - 2, ((last - first) / value.count) * width, 2); // of the whole
  pen.globalAlpha = 0.75;
  pen.fillStyle = style.getPropertyValue("--body-text-color") || "#000";
  pen.fillRect(x(shown()) - 1, 0, 2, height);
  pen.globalAlpha = 1;
  canvas.setAttribute("aria-valuenow", shown());
  canvas.setAttribute("aria-valuetext", `Frame ${shown()}; work on ${value.start} to ${value.stop - 1}`);
  canvas.setAttribute("aria-valuemax", value.count - 1);
}

const frameUnder = (event) => {
  const area = find(".timeline").getBoundingClientRect();
  const { from, to } = scopeNow();
  return clamp(Math.floor(from + ((event.clientX - area.left) / area.width) * (to - from)), 0, value.count - 1);
};

/** Which end of the part that is worked on lies under the pointer: "start", "stop" or null. */
function endUnder(event) {
  const area = find(".timeline").getBoundingClientRect();
  const reach = event.pointerType === "touch" ? 24 : 10;
  if (event.clientY - area.top > reach) return null;
  const { from, to } = scopeNow();
  const near = ["start", "stop"].map((name) => Math.abs(event.clientX - area.left - ((value[name] - from) / (to - from)) * area.width));
  if (Math.min(...near) > reach) return null;
  return near[0] < near[1] ? "start" : "stop";
}

function dragEnd(frame) {
  if (end === "start") value.start = Math.min(frame, value.stop - 1);
  else value.stop = Math.max(frame + 1, value.start + 1);
  drawTimeline();
}

// ------------------------------------------------------------------------------------- the brush

function clearStrokes() {
  const canvas = find(".strokes");
  canvas.width = value.width;
  canvas.height = value.height;
}

/** Radius in pixels of the video: what the slider says, in pixels of the screen. */
const radius = () => (find(".radius input").value / 2) * (value.width / find(".film").getBoundingClientRect().width);

function paint(to) {
  const pen = find(".strokes").getContext("2d");
  const thing = value.things.find((t) => t.id === value.active);
  pen.strokeStyle = tool === "eraser" ? "#000a" : `${thing?.color ?? "#ffffff"}aa`;
  pen.lineWidth = 2 * radius();
  pen.lineCap = pen.lineJoin = "round";
  const from = stroke[stroke.length - 1] ?? [to.x, to.y];
  stroke.push([to.x, to.y]);
  pen.beginPath();
  pen.moveTo(...from);
  pen.lineTo(to.x, to.y + 0.01);
  pen.stroke();
}

// --------------------------------------------------------------------------- watching the run

/** Show what a run makes, as large as the picture and in its place; or the picture itself. */
function watchRun(on) {
  watching = on && value.running;
  find(".watch").hidden = !value.running;
  all("[data-watch]").forEach((choice) => (choice.ariaChecked = !!choice.dataset.watch === watching));
  rove(find(".watch"));
  clearInterval(watched);
  if (watching) watched = setInterval(fetchLive, 500);
  else showLive(null);
}

async function fetchLive() {
  const answer = await fetch(`media/${value.session}/picture.jpg`);
  if (answer.status !== 200 || !watching) return; // 204: nothing has been made yet
  showLive(await answer.blob(), answer.headers.get("x-frame"));
}

function showLive(picture, frame) {
  const [live, image] = [find(".live"), find(".live img")];
  URL.revokeObjectURL(image.src);
  live.hidden = !picture;
  if (!picture) return image.removeAttribute("src");
  image.src = URL.createObjectURL(picture);
  image.alt = `Frame ${frame}, as it has just been made`;
  find(".live figcaption").textContent = `Run, frame ${frame}`;
}

// ---------------------------------------------------------------------------------- the picking

async function readSurvey() {
  if (survey?.url === value.survey) return;
  survey = null;
  if (!value.survey) return void (tool === "pick" && local === null && ask("survey"));
  const url = value.survey;
  const picture = Object.assign(new Image(), { src: url });
  await picture.decode();
  const canvas = Object.assign(document.createElement("canvas"), { width: picture.naturalWidth, height: picture.naturalHeight });
  const pen = canvas.getContext("2d");
  pen.drawImage(picture, 0, 0);
  if (value?.survey !== url) return; // another frame is shown by now
  survey = { url, pixels: pen.getImageData(0, 0, canvas.width, canvas.height) };
  clearInterval(asking);
  showBadge();
}

async function tellSurvey() {
  const answer = await fetch(`media/${value.session}/survey.json`);
  if (!answer.ok) return;
  const share = await answer.json();
  if (value && surveying() && !value.survey) badge(`Finding everything: ${Math.round(100 * share)} %`);
}

/** Light up the object under the pointer. */
function point(at) {
  if (!survey) return;
  const { width, height, data } = survey.pixels;
  const [x, y] = [Math.floor((at.x / value.width) * width), Math.floor((at.y / value.height) * height)];
  const number = data[4 * (y * width + x)];
  if (number === pointed) return;
  pointed = number;
  const light = new ImageData(width, height);
  if (number) {
    for (let i = 0; i < data.length; i += 4) if (data[i] === number) light.data.set([255, 255, 255, 110], i);
  }
  const canvas = find(".strokes");
  [canvas.width, canvas.height] = [width, height];
  canvas.getContext("2d").putImageData(light, 0, 0);
}

// ------------------------------------------------------------------------------ mouse and touch

const fingers = new Map(); // on the picture
let pinching = false;
let last = null; // where the pointer was before
const dragged = (event) => press && Math.hypot(event.clientX - press.clientX, event.clientY - press.clientY) > DRAG;
const paints = () => tool === "brush" || tool === "eraser";
const draws = () => paints() || tool === "box";

function markTool(next) {
  tool = next;
  all("button[data-tool]").forEach((b) => b.setAttribute("aria-checked", b.dataset.tool === tool));
  find(".radius").hidden = !paints();
  // With a finger, a drag scrolls the page unless it draws something.
  find(".stage").style.touchAction = draws() || zoom.scale > 1 ? "none" : "pan-y";
  find(".stage").dataset.tool = tool;
  rove(find("[data-tool]").parentElement);
  pointed = 0;
  if (value) clearStrokes();
}

function choose(next) {
  if (watching) watchRun(false);
  markTool(next);
  if (value) render();
}

element.addEventListener("pointerdown", (event) => {
  if (!value) return;
  if (event.target.closest(".timeline")) {
    find(".timeline").setPointerCapture(event.pointerId);
    end = endUnder(event);
    if (end) return;
    scrubbing = true;
    seek(frameUnder(event), 250);
    return;
  }
  if (!event.target.closest(".stage")) return;
  if (watching) return watchRun(false);
  if (event.pointerType === "touch") fingers.set(event.pointerId, event);
  if (fingers.size > 1) return void (pinching = true, cancel());
  press = last = event;
  if (event.pointerType !== "touch" || draws() || zoom.scale > 1) find(".stage").setPointerCapture(event.pointerId);
  if (paints() && event.button === 0) {
    stroke = [];
    paint(pixel(event));
  }
});

element.addEventListener("pointermove", (event) => {
  if (scrubbing) return seek(frameUnder(event), 250);
  if (end) return dragEnd(frameUnder(event));
  if (value && event.target.closest(".timeline")) {
    tell(frameUnder(event));
    find(".timeline").style.cursor = endUnder(event) ? "ew-resize" : "";
  }
  if (fingers.has(event.pointerId)) {
    const before = spread();
    fingers.set(event.pointerId, event);
    if (pinching && fingers.size === 2) return pinch(before, spread());
  }
  if (tool === "pick" && value && event.target.closest(".stage")) point(pixel(event));
  if (!press || press.pointerId !== event.pointerId) return;
  if (stroke) paint(pixel(event));
  else if (!moves()) dragged(event) && press.button === 0 && mark("box", pixel(press), pixel(event));
  else if (zoom.scale > 1) {
    const area = find(".stage").getBoundingClientRect();
    pan((event.clientX - last.clientX) / area.width, (event.clientY - last.clientY) / area.height);
  }
  last = event;
});

/** Two fingers: how far apart they are, and their middle, in shares of the stage. */
function spread() {
  const [one, other] = [...fingers.values()];
  if (!other) return null;
  const area = find(".stage").getBoundingClientRect();
  return {
    apart: Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY),
    x: ((one.clientX + other.clientX) / 2 - area.left) / area.width,
    y: ((one.clientY + other.clientY) / 2 - area.top) / area.height,
  };
}

function pinch(before, now) {
  setZoom((zoom.scale * now.apart) / Math.max(1, before.apart), before);
  pan(now.x - before.x, now.y - before.y);
}

/** Whether the press moves the picture, and marks nothing when it is dragged. */
const moves = () => press.button === 1 || press.shiftKey || (press.pointerType === "touch" && !draws());

function cancel() {
  press = stroke = end = null;
  scrubbing = false;
  all(".pending").forEach((sign) => sign.remove());
  if (value) clearStrokes();
}

function lift(event) {
  fingers.delete(event.pointerId);
  if (!fingers.size) pinching = false;
}

// On a touch screen a drag scrolls the page; the browser then cancels the press.
element.addEventListener("pointercancel", (event) => {
  lift(event);
  cancel();
});

element.addEventListener("pointerup", (event) => {
  if (pinching) return lift(event);
  lift(event);
  if (scrubbing) {
    scrubbing = false;
    return seek(frameUnder(event), 0);
  }
  if (end) {
    dragEnd(frameUnder(event)); // an answer may have come meanwhile
    end = null;
    return act("limit", { start: value.start, stop: value.stop });
  }
  if (!press || !value) return;
  const [from, to, frame] = [pixel(press), pixel(event), shown()];
  if (stroke) {
    act("paint", { frame, strokes: [{ points: stroke, radius: radius(), add: tool === "brush" }] });
    stroke = null;
  } else if (press.button === 1 || (dragged(event) && (moves() || press.button === 2))) {
    // It was moved, or nothing is meant by it.
  } else if (tool === "pick" && !dragged(event)) {
    point(to);
    if (pointed) act("pick", { frame, number: pointed - 1 });
  } else if (dragged(event)) {
    mark("box", from, to);
    act("box", { frame, x0: from.x, y0: from.y, x1: to.x + 1, y1: to.y + 1 });
  } else if (tool !== "box") {
    pointAt(to, press.button === 2 || press.ctrlKey || tool === "minus" ? 0 : 1);
  }
  press = null;
});

function pointAt(at, label) {
  mark("dot", at, at);
  act("point", { frame: shown(), ...at, label });
}

element.addEventListener("contextmenu", (event) => {
  if (event.target.closest(".stage")) event.preventDefault();
});

element.addEventListener("wheel", (event) => {
  if (value && event.target.closest(".timeline") && (event.ctrlKey || (scope && event.deltaX))) {
    event.preventDefault();
    const { from, to } = scopeNow();
    if (!event.ctrlKey) return setScope(from + (event.deltaX / 500) * (to - from), to - from);
    const [at, scale] = [frameUnder(event), Math.exp(event.deltaY / 300)];
    return setScope(at - (at - from) * scale, (to - from) * scale);
  }
  if (!value || !event.target.closest(".stage") || !(event.ctrlKey || zoom.scale > 1)) return;
  event.preventDefault();
  const area = find(".stage").getBoundingClientRect();
  setZoom(zoom.scale * Math.exp(-event.deltaY / 300), {
    x: (event.clientX - area.left) / area.width, y: (event.clientY - area.top) / area.height,
  });
}, { passive: false });

// ----------------------------------------------------------------------------- buttons and keys

function play() {
  if (playing) {
    clearInterval(playing);
    playing = null;
  } else {
    if (shown() >= value.count - 1) seek(0);
    playing = setInterval(() => {
      if (!find("img.frame").complete) return; // as fast as frames come, and none is skipped
      if (shown() >= value.count - 1) return play();
      seek(shown() + 1, 200);
    }, 1000 / Math.min(value.fps, 30));
  }
  find("#play").innerHTML = icon(playing ? "stop" : "play");
  find("#play").setAttribute("aria-label", playing ? "Stop" : "Play");
}

function jump(where) {
  if (where === "play") return play();
  if (where === "doubt") {
    const next = doubts().find((frame) => frame > shown()) ?? doubts()[0];
    return next === undefined ? undefined : seek(next, 0);
  }
  if (!where.startsWith("key")) return seek(shown() + Number(where));
  const frames = value.things.flatMap((t) => t.keys);
  const next = where === "key1" ? Math.min(...frames.filter((f) => f > shown())) : Math.max(...frames.filter((f) => f < shown()));
  if (Number.isFinite(next)) seek(next, 0);
}

/** Takes seconds, in which clicks are answered: an event of its own. */
function findAgain() {
  if (!value.again || local !== null || searching !== null) return;
  searching = value.searches;
  trigger("again", {});
  render();
}

const COMMANDS = {
  undo: () => act("undo"),
  redo: () => act("redo"),
  clear: () => act("clear"),
  add: () => act("add"),
  start: () => act("begin", { frame: shown() }),
  stop: () => act("end", { frame: shown() }),
  whole: () => act("limit", { start: 0, stop: null }),
  again: findAgain,
  zoom: toggleScope,
};

element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button || !value) return;
  const { tool: chosen, act: command, jump: where, zoom: step, watch: live } = button.dataset;
  if (chosen) choose(chosen);
  else if (live !== undefined) watchRun(!!live);
  else if (command) COMMANDS[command]();
  else if (where) jump(where);
  else if (step === "0") setZoom(1);
  else if (step) setZoom(zoom.scale * 1.5 ** Number(step));
});

element.addEventListener("input", (event) => {
  if (event.target.closest("#frame")) typing = true;
});

element.addEventListener("change", (event) => {
  if (!event.target.closest("#frame")) return;
  typing = false;
  seek(Number(event.target.value), 0);
});

element.addEventListener("focusout", (event) => {
  if (event.target.closest("#frame")) typing = false;
});

/** A cross that the keyboard moves, to point where the mouse would. */
function moveAim(x, y) {
  const step = Math.max(1, Math.round(value.width / 60));
  aim ??= { x: Math.floor(value.width / 2), y: Math.floor(value.height / 2) };
  aim = { x: clamp(aim.x + x * step, 0, value.width - 1), y: clamp(aim.y + y * step, 0, value.height - 1) };
  showAim();
}

function showAim() {
  const cross = find(".aim");
  cross.hidden = !aim;
  if (!aim) return;
  cross.style.left = `${(100 * (aim.x + 0.5)) / value.width}%`;
  cross.style.top = `${(100 * (aim.y + 0.5)) / value.height}%`;
  find(".spoken").textContent = `Cross at ${aim.x}, ${aim.y}`;
}

/** Within a group of choices the arrow keys go from one to the next, and Tab leaves it. */
function walk(event) {
  const group = event.target.closest("[role=radiogroup]");
  const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
  if (!group || !step) return false;
  const choices = [...group.querySelectorAll("[role=radio]")];
  const next = choices[(choices.indexOf(event.target) + step + choices.length) % choices.length];
  next.focus();
  next.click();
  return true;
}

document.addEventListener("keydown", (event) => {
  if (event.target.closest("input")) return;
  if (walk(event)) return event.preventDefault();
  // Run and its like lie elsewhere; who has just pressed one goes on with the picture.
  const elsewhere = !element.contains(event.target) && event.target !== document.body;
  if (!value || (elsewhere && !event.target.matches("#buttons button, #samples button"))) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const far = event.shiftKey ? 10 : 1;
  const keys = {
    ArrowLeft: () => seek(shown() - far), ArrowRight: () => seek(shown() + far),
    Home: () => seek(0), End: () => seek(value.count - 1), " ": play,
    a: () => choose("plus"), s: () => choose("minus"), b: () => choose("box"), f: () => choose("pick"), p: () => choose("brush"), e: () => choose("eraser"),
    i: COMMANDS.start, o: COMMANDS.stop, n: () => jump("doubt"), r: findAgain, z: toggleScope, w: () => value.running && watchRun(!watching),
    "+": () => setZoom(zoom.scale * 1.5), "-": () => setZoom(zoom.scale / 1.5), 0: () => setZoom(1),
  };
  const numbered = { 1: 0, 2: 1, 3: 2 };
  const control = event.ctrlKey || event.metaKey;
  const aims = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  if (event.altKey && key in aims) moveAim(...aims[key]);
  else if (event.altKey) return;
  else if (aim && key === "Enter" && !control && !event.target.closest("button")) pointAt(aim, 1);
  else if (aim && (key === "Delete" || key === "Backspace")) pointAt(aim, 0);
  else if (key === "Escape") {
    cancel();
    aim = null;
    showAim();
  } else if (control) {
    if (key === "z") event.shiftKey ? COMMANDS.redo() : COMMANDS.undo();
    else if (key === "y") COMMANDS.redo();
    else if (key === "Enter") document.querySelector("#run").click();
    else return;
  } else if (key in numbered && numbered[key] < value.candidates.count) {
    act("choose", { frame: value.index, number: numbered[key] });
  } else if (keys[key] && !(key === " " && event.target.closest("button"))) keys[key]();
  else return;
  event.preventDefault();
});

// Something may have been done in another tab, or been finished while nobody looked.
document.addEventListener("visibilitychange", () => {
  if (value && !document.hidden) trigger("refresh", {});
});
// Somebody has seen in a result what is to be put right.
document.addEventListener("mixcut-frame", (event) => {
  if (!value) return;
  find(".title").scrollIntoView({ behavior: "smooth" });
  find(".stage").focus({ preventScroll: true });
  seek(event.detail, 0);
});
window.addEventListener("popstate", () => location.reload());

new ResizeObserver(drawTimeline).observe(element);
choose("plus");
watch("value", render);
render();
