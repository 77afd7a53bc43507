// The results: one of the videos at a time, alone or beside what it was made from, and downloads.
// Gradio runs this once with `element`, `props` and `watch` at hand.

const NAMES = {
  "tracked.mp4": "Followed", "segmented.mp4": "Cut out", "removed.mp4": "Painted away",
  "cutout.webm": "Cut-out, see-through (WebM)", "cutout.mov": "Cut-out, see-through (ProRes)", "cutout_green.mp4": "Green screen",
  "matte.mp4": "Masks only",
  "masks_and_tracks.zip": "Masks and tracks (zip)",
  "tracks.csv": "Boxes (CSV)", "tracks.json": "Boxes (JSON)",
};
const SHOWN = ["removed.mp4", "segmented.mp4", "tracked.mp4", "cutout.webm", "cutout_green.mp4", "matte.mp4"];

const find = (selector) => element.querySelector(selector);
const all = (selector) => [...element.querySelectorAll(selector)];
const button = (properties) => Object.assign(document.createElement("button"), { type: "button", ...properties });
const link = (name) => `media/${props.value.session}/result/${name}`;

const plays = (name) => find(".after").canPlayType(name.endsWith(".webm") ? 'video/webm; codecs="vp9"' : 'video/mp4; codecs="avc1.640028"') !== "";

/** Whether a video shows the chosen part only; those of what was cut out always do. */
const trimmed = (name) => props.value.trimmed || /^(cutout|matte)/.test(name);

let which = null;
let how = "alone";

function show() {
  const [before, after] = [find(".before"), find(".after")];
  const base = new URL(`${link(which)}?v=${props.value.version}`, document.baseURI).href;
  if (after.src.split("#")[0] !== base) {
    after.src = trimmed(which) || !props.value.begin ? base : `${base}#t=${props.value.begin}`;
    after.id = which.replace(".", "_");
  }
  find(".screen").hidden = !plays(which); // some windows have no H.264
  find(".player").hidden = !plays(which);
  find(".unplayable").hidden = plays(which);
  find(".screen").style.setProperty("--ratio", props.value.width / props.value.height);
  const comparable = props.value.comparable; // or the browser cannot play the source
  if (!comparable) how = "alone";
  find(".how").hidden = !comparable;
  const source = new URL(`media/${props.value.session}/source`, document.baseURI).href;
  if (how !== "alone" && before.src !== source) before.src = source;
  find(".screen").dataset.view = how;
  const choices = [...all(".how button").map((b) => [b, b.dataset.view === how]), ...all(".which button").map((b) => [b, b.dataset.name === which])];
  for (const [choice, chosen] of choices) {
    choice.setAttribute("aria-checked", chosen);
    choice.tabIndex = chosen ? 0 : -1; // the arrow keys go to the others
  }
  wipe();
  keepInStep();
}

function wipe() {
  const share = find(".wipe").value;
  find(".after").style.clipPath = how === "wipe" ? `inset(0 0 0 ${share}%)` : "";
  find(".screen").style.setProperty("--share", `${share}%`);
}

/** The player below follows the one above. */
function keepInStep() {
  const [before, after] = [find(".before"), find(".after")];
  if (how === "alone") return before.pause();
  const wanted = after.currentTime + (trimmed(which) ? props.value.begin : 0); // its clock begins there
  if (Math.abs(before.currentTime - wanted) > 0.08) before.currentTime = wanted;
  after.paused ? before.pause() : before.play().catch(() => {});
}

/** The frame of the source that is shown. */
function shownFrame() {
  const { fps, begin } = props.value;
  return Math.floor((find(".after").currentTime + (trimmed(which) ? begin : 0)) * fps + 0.01);
}

/** The bar below: where the video is, and whether it plays. */
function showTime() {
  const after = find(".after");
  find(".seek").value = after.currentTime / (after.duration || 1);
  find(".time").textContent = `frame ${shownFrame()}, ${after.currentTime.toFixed(2)} of ${(after.duration || 0).toFixed(2)} s`;
  find("[data-do=play]").setAttribute("aria-label", after.paused ? "Play" : "Stop");
  find("[data-do=play] path").setAttribute("d", after.paused ? "M4 2l9 6-9 6z" : "M4 2h3v12H4zM9 2h3v12H9z");
  find("[data-do=mute]").setAttribute("aria-pressed", after.muted);
}

const COMMANDS = {
  play: (video) => (video.paused ? video.play() : video.pause()),
  back: (video) => step(video, -1),
  on: (video) => step(video, 1),
  mute: (video) => (video.muted = !video.muted),
  // The editor goes there.
  correct: (video) => (video.pause(), document.dispatchEvent(new CustomEvent("mixcut-frame", { detail: shownFrame() }))),
  full: () => (document.fullscreenElement ? document.exitFullscreen() : find(".screen").requestFullscreen()),
};

function step(video, frames) {
  video.pause();
  // To the middle of the frame, which rounding cannot miss.
  const frame = Math.floor(video.currentTime * props.value.fps + 0.01) + frames;
  video.currentTime = Math.min(Math.max(frame + 0.5, 0) / props.value.fps, video.duration);
}

function render() {
  if (!props.value) return;
  const videos = SHOWN.filter((name) => props.value.files.includes(name));
  if (!videos.includes(which)) which = videos[0];
  find(".which").replaceChildren(
    ...videos.map((name) => {
      const choice = button({ textContent: NAMES[name], onclick: () => { which = name; show(); } });
      choice.dataset.name = name;
      choice.setAttribute("role", "radio");
      return choice;
    }),
  );
  find(".saves").replaceChildren(
    "Download",
    ...[...videos, ...props.value.files.filter((name) => !videos.includes(name))].map((name) =>
      Object.assign(document.createElement("a"), {
        href: `${link(name)}?download`, download: name, textContent: NAMES[name] ?? name, id: `${name.replace(".", "_")}_download`,
      })),
  );
  if (which) show();
}

element.addEventListener("click", (event) => {
  const view = event.target.closest("[data-view]");
  if (view && view.tagName === "BUTTON") { how = view.dataset.view; show(); }
  const command = event.target.closest("[data-do]")?.dataset.do;
  if (command) COMMANDS[command](find(".after"));
  else if (event.target === find(".after")) COMMANDS.play(find(".after"));
});
element.addEventListener("input", (event) => {
  if (event.target.matches(".wipe")) wipe();
  if (event.target.matches(".seek")) find(".after").currentTime = event.target.value * (find(".after").duration || 0);
});
for (const name of ["play", "pause", "seeked", "timeupdate", "loadedmetadata", "volumechange"]) find(".after").addEventListener(name, showTime);
for (const name of ["play", "pause", "seeked", "timeupdate", "ratechange"]) find(".after").addEventListener(name, keepInStep);
watch("value", render);
render();
