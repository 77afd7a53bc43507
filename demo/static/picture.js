// What the user does on the picture becomes an event: "point", "draw" or "seek". What is shown comes
// back from the server as a new value; only the marks of the click under way are drawn here.
// Gradio runs this with `element`, `trigger`, `props` and `watch` at hand.

const DRAG = 6; // screen pixels from which a click is a drag
let press = null; // where the button went down
let target = null; // the frame the arrow keys have reached, ahead of the one that is shown

const stage = () => element.querySelector(".stage");

/** Pixel of the video under a pointer event, kept inside the frame. */
function pixel(event) {
  const shown = stage().getBoundingClientRect();
  const inside = (offset, length, pixels) =>
    Math.min(pixels - 1, Math.max(0, Math.floor((offset / length) * pixels)));
  return {
    x: inside(event.clientX - shown.left, shown.width, props.value.width),
    y: inside(event.clientY - shown.top, shown.height, props.value.height),
  };
}

/** Mark what is being done: a pulsing dot, or the box that is being dragged. */
function mark(kind, from, to) {
  const { width, height } = props.value;
  let sign = stage().querySelector(".pending");
  if (!sign) sign = stage().appendChild(document.createElement("i"));
  sign.className = `pending ${kind}`;
  sign.style.left = `${(100 * Math.min(from.x, to.x)) / width}%`;
  sign.style.top = `${(100 * Math.min(from.y, to.y)) / height}%`;
  if (kind === "box") {
    sign.style.width = `${(100 * Math.abs(to.x - from.x)) / width}%`;
    sign.style.height = `${(100 * Math.abs(to.y - from.y)) / height}%`;
  }
}

function unmark() {
  element.querySelectorAll(".pending").forEach((sign) => sign.remove());
}

const dragged = (event) =>
  press && Math.hypot(event.clientX - press.clientX, event.clientY - press.clientY) > DRAG;

element.addEventListener("pointerdown", (event) => {
  if (!event.target.closest(".stage") || event.button === 1) return;
  press = event;
  if (event.pointerType === "mouse") stage().setPointerCapture(event.pointerId);
});

element.addEventListener("pointermove", (event) => {
  if (dragged(event) && press.pointerType === "mouse") mark("box", pixel(press), pixel(event));
});

// On a touch screen a drag scrolls the page; the browser then cancels the press.
element.addEventListener("pointercancel", () => {
  press = null;
  unmark();
});

element.addEventListener("pointerup", (event) => {
  if (!press || !props.value) return;
  const from = pixel(press);
  const to = pixel(event);
  const frame = props.value.index;
  if (dragged(event)) {
    mark("box", from, to);
    trigger("draw", { frame, x0: from.x, y0: from.y, x1: to.x + 1, y1: to.y + 1 });
  } else {
    const background = press.button === 2 || press.ctrlKey;
    mark("dot", to, to);
    trigger("point", { frame, ...to, background });
  }
  press = null;
});

element.addEventListener("contextmenu", (event) => {
  if (event.target.closest(".stage")) event.preventDefault();
});

element.addEventListener("keydown", (event) => {
  const direction = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!direction || !event.target.closest(".stage")) return;
  event.preventDefault();
  const step = direction * (event.shiftKey ? 10 : 1);
  target = Math.min(props.value.count - 1, Math.max(0, (target ?? props.value.index) + step));
  trigger("seek", { index: target });
});

watch("value", () => {
  unmark();
  if (props.value && props.value.index === target) target = null;
});
