"use strict";
// What the page does: sounds are sent, drawn, marked, played; separations are asked for and followed.

const BANDS = 96, TOP_HZ = 24000, RANGE_DB = 66; // as in pictures.py; dB below the loudest that are shown
const SHORTEST = 0.02; // seconds that can be shown
const $ = (id) => document.getElementById(id);
const dark = matchMedia("(prefers-color-scheme: dark)");
const INKS = {
  light: ["#fbfcfd", "#dbe9f1", "#a5c8e1", "#6f93cf", "#5f4fa6", "#511a66", "#22052b"],
  dark: ["#0b0d12", "#1b1742", "#54207a", "#a02c72", "#e05a4f", "#f9a840", "#fff6c8"],
};

const state = { model: null, limits: null, sound: null, tracks: [], active: null, asked: [], sounds: new Map() };
const view = { start: 0, end: 0, cursor: 0, mark: null }; // seconds; mark: [from, to]

// ---- the server ---------------------------------------------------------------------------------

async function api(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The program cannot be reached: its terminal says why. Start it again, and open its new address.");
  }
  if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).error || `status ${answer.status}`);
  return answer;
}
const json = async (path, options) => (await api(path, options)).json();

function send(file, onProgress) { // XMLHttpRequest says how much is sent
  const most = state.limits.bytes;
  if (file.size > most) return Promise.reject(new Error(`${file.name}: has ${gb(file.size)} GB; the page takes ${gb(most)} GB (--max_gb)`));
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", `sounds?title=${encodeURIComponent(file.name)}`);
    request.responseType = "json";
    request.upload.onprogress = (e) => onProgress(e.loaded / e.total);
    request.onload = () => request.status === 200 ? resolve(request.response) : reject(new Error(request.response?.error || `status ${request.status}`));
    request.onerror = () => reject(new Error(`${file.name}: could not be sent. Is it a folder, or has the program ended?`));
    request.send(file);
  });
}

function say(id, text, bad = true) {
  $(id).hidden = !text;
  $(id).textContent = text;
  $(id).classList.toggle("bad", bad);
}

// ---- words --------------------------------------------------------------------------------------

const gb = (bytes) => +(bytes / 1e9).toFixed(2);
function time(seconds, digits = 1) {
  const whole = Math.floor(seconds / 60), rest = (seconds - 60 * whole).toFixed(digits).padStart(digits ? 3 + digits : 2, "0");
  return whole >= 60 ? `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}:${rest}` : `${whole}:${rest}`;
}
const exact = (seconds) => String(+seconds.toFixed(3));
function parsed(text) { // 75.5 or 1:15.5
  const parts = text.trim().replace(",", ".").split(":");
  return parts.every((p) => /^\d+(\.\d*)?$|^\.\d+$/.test(p)) ? parts.reduce((sum, p) => 60 * sum + +p, 0) : NaN;
}
function length(sound) {
  const s = sound.seconds;
  return s < 60 ? `${+s.toFixed(s < 10 ? 2 : 1)} s` : time(s, 0) + (s < 3600 ? " min" : " h");
}
const facts = (sound) => `${length(sound)}, ${+(sound.fs / 1000).toFixed(2)} kHz, ${["", "mono", "stereo"][sound.channels] || `${sound.channels} channels`}`;
const stem = (title) => title.replace(/\.[^.]*$/, "") || title;
const quoted = (text) => /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;

// ---- colours ------------------------------------------------------------------------------------

let palette;
function mix() {
  const inks = INKS[dark.matches ? "dark" : "light"].map((c) => [1, 3, 5].map((i) => parseInt(c.slice(i, i + 2), 16)));
  palette = new Uint8ClampedArray(256 * 3);
  for (let i = 0; i < 256; i++) {
    const at = (i / 255) * (inks.length - 1), a = Math.min(Math.floor(at), inks.length - 2);
    for (let k = 0; k < 3; k++) palette[3 * i + k] = inks[a][k] + (at - a) * (inks[a + 1][k] - inks[a][k]);
  }
}

// ---- a track: a sound with its picture -----------------------------------------------------------

class Track {
  constructor(sound, name, scale = null) {
    this.sound = sound;
    this.name = name;
    this.scale = scale; // the track whose loudest point is the top of the scale; null: itself
    this.element = $("track").content.firstElementChild.cloneNode(true);
    const part = (selector) => this.element.querySelector(selector);
    [this.play, this.picture, this.canvas, this.marks, this.cursor, this.ticks, this.busy] =
      [".play", ".picture", "canvas", ".marks", ".cursor", ".ticks", ".busy"].map(part);
    part("strong").textContent = name;
    part(".title .note").textContent = scale ? "" : facts(sound);
    part(".title strong").title = name;
    this.play.setAttribute("aria-label", `Play ${name}`);
    this.play.onclick = () => toggle(this);
    this.picture.setAttribute("aria-label", `${name}: waveform and spectrogram. Space plays, arrows move, with Shift they mark a part, plus and minus zoom.`);
    this.hertz(part(".hertz"));
    this.audio = new Audio();
    this.audio.preload = "none";
    this.audio.src = `sounds/${sound.id}/listen`;
    this.audio.onended = () => { stop(); move(0); };
    this.audio.onerror = () => { stop(); say("message-mix", `${name}: this browser cannot play it; save it and listen elsewhere.`); };
    pointing(this);
    new ResizeObserver(() => this.paint()).observe(this.picture);
  }

  save(title) {
    const link = this.element.querySelector(".save");
    link.hidden = false;
    link.href = `sounds/${this.sound.id}/file`;
    link.download = title;
    link.setAttribute("aria-label", `Save ${this.name} as ${title}`);
  }

  score(presence) { // how likely its sound is in the recording, 0 to 1; null: the model does not say
    const element = this.element.querySelector(".presence");
    element.hidden = presence === null;
    element.textContent = `presence ${Math.round(100 * presence)} %`;
    element.title = "How likely this sound is in the recording";
  }

  hertz(element) {
    const mel = (f) => Math.log10(1 + f / 700), top = Math.min(TOP_HZ, this.sound.fs / 2);
    for (const f of [1000, 2000, 4000, 8000, 16000].filter((f) => f < 0.9 * top)) {
      const label = document.createElement("span");
      label.textContent = `${f / 1000} kHz`;
      label.className = f === 2000 || f === 8000 ? "fine" : "";
      label.style.bottom = `${100 * mel(f) / mel(top)}%`;
      element.append(label);
    }
  }

  async load() { // the part that is shown
    this.wait?.abort();
    this.wait = new AbortController();
    const { start, end } = view;
    try {
      const answer = await api(`sounds/${this.sound.id}/picture?start=${start.toFixed(4)}&end=${end.toFixed(4)}`, { signal: this.wait.signal });
      const data = await answer.arrayBuffer(), columns = data.byteLength / (8 + BANDS);
      this.drawn = { start, end, columns, peaks: new Float32Array(data, 0, 2 * columns), levels: new Uint8Array(data, 8 * columns) };
      if (!this.top) this.top = { peak: Math.max(1e-4, ...this.drawn.peaks.map(Math.abs)), level: Math.max(1, ...chunks(this.drawn.levels)) };
      this.busy.hidden = true;
      this.paint();
    } catch (error) {
      if (error.name !== "AbortError") this.busy.textContent = error.message;
    }
  }

  paint() {
    const { width, height } = this.picture.getBoundingClientRect(), ratio = devicePixelRatio || 1;
    if (!this.drawn || !width) return;
    const { columns, peaks, levels, start, end } = this.drawn, top = (this.scale || this).top;
    if (!top) return;
    const w = this.canvas.width = Math.round(width * ratio), h = this.canvas.height = Math.round(height * ratio), split = Math.round(h * 0.34);
    const pen = this.canvas.getContext("2d"), image = new ImageData(columns, BANDS);
    for (let c = 0; c < columns; c++)
      for (let b = 0; b < BANDS; b++) {
        const ink = 3 * Math.round(255 * Math.min(1, Math.max(0, 1 + (levels[c * BANDS + b] - top.level) / (2 * RANGE_DB))) ** 1.25);
        image.data.set([palette[ink], palette[ink + 1], palette[ink + 2], 255], 4 * ((BANDS - 1 - b) * columns + c));
      }
    const small = new OffscreenCanvas(columns, BANDS);
    small.getContext("2d").putImageData(image, 0, 0);
    const x = w * (start - view.start) / (view.end - view.start), wide = w * (end - start) / (view.end - view.start);
    pen.imageSmoothingQuality = "high";
    pen.drawImage(small, x, split, wide, h - split);
    pen.fillStyle = getComputedStyle(this.picture).getPropertyValue("--wave");
    const middle = split / 2, scale = (middle - 3 * ratio) / top.peak, step = wide / columns;
    pen.beginPath();
    const at = (c, k) => middle - scale * peaks[2 * c + k];
    for (let c = 0; c < columns; c++) pen.lineTo(x + (c + 0.5) * step, at(c, 1) - ratio / 2);
    for (let c = columns; c--;) pen.lineTo(x + (c + 0.5) * step, at(c, 0) + ratio / 2);
    pen.fill();
  }

  place() { // cursor, marks, ticks
    const share = (t) => `${100 * (t - view.start) / (view.end - view.start)}%`;
    this.cursor.style.left = share(view.cursor);
    this.cursor.hidden = view.cursor < view.start || view.cursor > view.end;
    const spans = this.scale ? [] : state.asked.filter((item) => item.sound === this.sound.id && "start" in item)
      .map((item) => [item.start, item.end, `mark kept${item.not ? " not" : ""}`]);
    if (view.mark) spans.push([...view.mark, "mark"]);
    this.marks.replaceChildren(...spans.map(([a, b, kind]) => {
      const element = document.createElement("div");
      element.className = kind;
      element.style.left = share(a);
      element.style.width = `max(3px, ${100 * (b - a) / (view.end - view.start)}%)`;
      return element;
    }));
    const seconds = view.end - view.start, most = Math.max(2, Math.floor(this.picture.clientWidth / 70));
    const step = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200].find((s) => seconds / s <= most) || 14400;
    this.ticks.replaceChildren(...Array.from({ length: Math.ceil(seconds / step) + 1 }, (_, i) => (Math.ceil(view.start / step) + i) * step)
      .filter((t) => t > view.start + 0.03 * seconds && t < view.end - 0.03 * seconds).map((t) => {
        const element = document.createElement("span");
        element.textContent = time(t, step < 0.1 ? 2 : step < 1 ? 1 : 0);
        element.style.left = share(t);
        return element;
      }));
  }
}

function* chunks(levels) { // the highest of each part: a call takes so many arguments only
  for (let i = 0; i < levels.length; i += 4096) yield levels.subarray(i, i + 4096).reduce((a, b) => Math.max(a, b), 0);
}

// ---- view, cursor, mark -------------------------------------------------------------------------

let loading;
function show(start, end) {
  const all = state.sound.seconds, wide = Math.min(all, Math.max(SHORTEST, end - start));
  view.start = Math.min(Math.max(0, start), all - wide);
  view.end = view.start + wide;
  const inside = wide < all - 1e-6;
  $("pan").hidden = !inside;
  $("pan").value = inside ? 1000 * view.start / (all - wide) : 0;
  $("zoom-out").disabled = $("zoom-all").disabled = !inside;
  for (const track of state.tracks) track.paint();
  place();
  clearTimeout(loading);
  loading = setTimeout(() => state.tracks.forEach((track) => track.load()), 80);
}
function zoom(factor, at = view.mark ? (view.mark[0] + view.mark[1]) / 2 : view.cursor) {
  if (at < view.start || at > view.end) at = (view.start + view.end) / 2;
  const wide = (view.end - view.start) * factor;
  show(at - wide * (at - view.start) / (view.end - view.start), at + wide * (view.end - at) / (view.end - view.start));
}
function place() {
  for (const track of state.tracks) track.place();
  $("clock").textContent = `${time(view.cursor, 2)} / ${time(state.sound?.seconds || 0, 1)}`;
}
function move(to) {
  view.cursor = Math.min(Math.max(0, to), state.sound.seconds);
  if (state.active) state.active.audio.currentTime = view.cursor;
  place();
}
function mark(a, b) {
  view.mark = a === null ? null : [Math.max(0, Math.min(a, b)), Math.min(state.sound.seconds, Math.max(a, b))];
  [$("from").value, $("to").value] = view.mark ? view.mark.map(exact) : ["", ""];
  wishes();
  place();
}

function pointing(track) {
  const at = (e) => {
    const box = track.picture.getBoundingClientRect();
    return view.start + (view.end - view.start) * Math.min(1, Math.max(0, (e.clientX - box.left) / box.width));
  };
  let begin = null, x = 0;
  track.picture.onpointerdown = (e) => {
    if (e.button) return;
    [begin, x] = [at(e), e.clientX];
    track.picture.setPointerCapture(e.pointerId);
  };
  track.picture.onpointermove = (e) => {
    if (begin !== null && Math.abs(e.clientX - x) > 4) mark(begin, at(e));
  };
  track.picture.onpointerup = (e) => {
    if (begin === null) return;
    const dragged = Math.abs(e.clientX - x) > 4;
    if (!dragged) mark(null);
    move(dragged ? view.mark[0] : at(e));
    begin = null;
  };
  track.picture.onpointercancel = () => { begin = null; };
  track.picture.addEventListener("wheel", (e) => {
    if (e.ctrlKey || e.metaKey) zoom(Math.exp(0.004 * e.deltaY), at(e));
    else if (Math.abs(e.deltaX) > Math.abs(e.deltaY)) pan(0.001 * e.deltaX);
    else return;
    e.preventDefault();
  }, { passive: false });
  track.picture.onkeydown = (e) => {
    const step = (view.end - view.start) / 50, way = { ArrowLeft: -step, ArrowRight: step }[e.key];
    if (way && e.shiftKey) {
      const [a, b] = view.mark || [view.cursor, view.cursor];
      mark(a, Math.max(a, b + way));
    } else if (way) move(view.cursor + way);
    else if (e.key === " ") toggle(track);
    else if (e.key === "+") zoom(0.5);
    else if (e.key === "-") zoom(2);
    else if (e.key === "0") show(0, state.sound.seconds);
    else if (e.key === "Escape") mark(null);
    else if (e.key === "Enter" && view.mark) addSpan();
    else return;
    e.preventDefault();
  };
}
function pan(share) {
  const wide = view.end - view.start;
  show(view.start + share * wide, view.end + share * wide);
}

// ---- listening: one track at a time, at one place -------------------------------------------------

let until = null;
function toggle(track) {
  const same = state.active === track;
  stop();
  if (same) return;
  if (view.cursor >= state.sound.seconds - 0.02) view.cursor = 0;
  until = view.mark && Math.abs(view.cursor - view.mark[0]) < 0.02 ? view.mark[1] : null;
  state.active = track;
  track.audio.currentTime = view.cursor;
  track.audio.play().then(follow, () => {});
  track.play.classList.add("playing");
  track.play.setAttribute("aria-label", `Pause ${track.name}`);
}
function stop() {
  const track = state.active;
  if (!track) return;
  state.active = null;
  track.audio.pause();
  track.play.classList.remove("playing");
  track.play.setAttribute("aria-label", `Play ${track.name}`);
}
function follow() {
  if (!state.active) return;
  view.cursor = state.active.audio.currentTime;
  if (until !== null && view.cursor >= until) {
    const back = view.mark ? view.mark[0] : until;
    stop();
    move(back);
    return;
  }
  const wide = view.end - view.start;
  if (view.cursor > view.end && view.end < state.sound.seconds) show(view.cursor, view.cursor + wide);
  place();
  requestAnimationFrame(follow);
}

// ---- recordings ---------------------------------------------------------------------------------

async function take(file, zone, message, use) {
  if (!file) return;
  if (zone.classList.contains("busy")) return say(message, `${file.name}: wait until the one before is here`);
  const line = zone.querySelector("strong"), words = line.textContent;
  zone.classList.add("busy");
  say(message, "");
  try {
    await state.known; // a file may be dropped before the program has said what it takes
    const sound = await send(file, (share) => { line.textContent = share < 1 ? `Sending … ${Math.round(100 * share)} %` : "Reading it …"; });
    state.sounds.set(sound.id, sound);
    use(sound);
    const again = sound.again ? [`${sound.title}: is here already; it is kept once`] : [];
    say(message, [...again, ...sound.notes].join(". "), false);
  } catch (error) {
    say(message, error.message);
  } finally {
    line.textContent = words;
    zone.classList.remove("busy");
    zone.querySelector("input").value = "";
  }
}

function openRecording(sound) {
  stop();
  state.sound = sound;
  Object.assign(view, { cursor: 0, mark: null });
  const track = new Track(sound, sound.title);
  state.tracks = [track];
  $("mix").replaceChildren(track.element);
  $("results").replaceChildren();
  for (const id of ["mix", "tools", "ask", "another"]) $(id).hidden = false;
  $("drop-mix").hidden = $("steps").hidden = true;
  recordings.add(sound.id);
  $("others").hidden = recordings.size < 2;
  $("other").replaceChildren(...[...recordings].map((id) => new Option(state.sounds.get(id).title, id, false, id === sound.id)));
  mark(null);
  showAsked();
  show(0, sound.seconds);
}
const recordings = new Set();

async function reopen(id) { // with what was made of it
  const found = await json("state");
  found.sounds.forEach((sound) => state.sounds.set(sound.id, sound));
  [...recordings].filter((other) => !state.sounds.has(other)).forEach((other) => recordings.delete(other));
  state.asked = state.asked.filter((item) => !item.sound || state.sounds.has(item.sound));
  if (!state.sounds.has(id)) return;
  openRecording(state.sounds.get(id));
  found.works.filter((work) => work.asked.recording === id && work.state !== "cancelled").forEach(showWork);
}

function zone(element, use) {
  const input = element.querySelector("input");
  element.ondragover = (e) => { e.preventDefault(); element.classList.add("over"); };
  element.ondragleave = () => element.classList.remove("over");
  element.ondrop = (e) => {
    e.preventDefault();
    e.stopPropagation();
    element.classList.remove("over");
    use([...e.dataTransfer.files]);
  };
  element.onkeydown = (e) => { if (e.key === "Enter" || e.key === " ") { e.preventDefault(); input.click(); } };
  input.onchange = () => use([...input.files]);
}

// ---- what is asked for --------------------------------------------------------------------------

const named = (item) => item.class || (state.sounds.get(item.sound)?.title ?? "a sound") + ("start" in item ? ` ${exact(item.start)}–${exact(item.end)} s` : "");
const same = (a, b) => a.sound === b.sound && a.class === b.class && a.start === b.start && a.end === b.end;
function add(item) {
  say("message-ask", state.asked.some((other) => same(item, other)) ? `${named(item)}: is asked for already` : "", false);
  if (!state.asked.some((other) => same(item, other))) state.asked.push(item);
  showAsked();
}
function addSpan() {
  const [start, end] = [parsed($("from").value), parsed($("to").value)];
  if (!(start < end)) return say("message-ask", "A part is from one second to a later one, such as 1.5 to 3.");
  mark(null);
  add({ sound: state.sound.id, start: +exact(start), end: +exact(end), not: false });
}
function showAsked() {
  $("asked").replaceChildren(...state.asked.map((item) => {
    const chip = document.createElement("li"), name = document.createElement("b"), turn = document.createElement("button"), away = document.createElement("button");
    chip.className = item.not ? "chip not" : "chip";
    name.textContent = item.not ? `not ${named(item)}` : named(item);
    turn.textContent = item.not ? "ask for it" : "keep it out";
    turn.title = item.not ? "Ask for what sounds like this" : "Leave what sounds like this in the rest";
    turn.onclick = () => { item.not = !item.not; showAsked(); };
    away.textContent = "✕";
    away.setAttribute("aria-label", `Do not ask for ${named(item)}`);
    away.onclick = () => { state.asked.splice(state.asked.indexOf(item), 1); showAsked(); };
    chip.append(name, turn, away);
    return chip;
  }));
  sessionStorage.setItem("page", JSON.stringify([state.sound.id, [...recordings], state.asked])); // for a reload
  wishes();
  place();
}
function wished() { // what the button would ask for: without a list, the marked part
  const list = state.asked.some((item) => !item.not) || !view.mark ? state.asked
    : [...state.asked, { sound: state.sound.id, start: +exact(view.mark[0]), end: +exact(view.mark[1]), not: false }];
  const plain = ({ not, ...item }) => item;
  const ask = list.filter((item) => !item.not).map(plain), against = list.filter((item) => item.not).map(plain);
  return { ask, against, mode: ask.length > 1 ? $("mode").value : "mean", gate: state.model.gate && $("gate").checked };
}
function wishes() {
  const weak = state.model.task === "weak", { ask } = wished();
  $("add-span").disabled = !($("from").value && $("to").value);
  $("separate").disabled = !weak && !ask.length;
  $("several").hidden = ask.length < 2;
  $("wish").textContent = weak || ask.length > 1 ? "" : ask.length ? `what sounds like ${named(ask[0])}` : "Mark a part, add an example or choose a class.";
}

async function separate() {
  say("message-ask", "");
  try {
    const body = JSON.stringify({ recording: state.sound.id, ...wished(), format: $("format").value });
    const work = await json("works", { method: "POST", body });
    const card = document.querySelector(`[data-work="${work.id}"]`);
    if (card) {
      say("message-ask", "This was asked for already: its result is below.", false);
      card.scrollIntoView({ block: "nearest" });
    } else showWork(work);
  } catch (error) {
    say("message-ask", error.message);
  }
}

// ---- results ------------------------------------------------------------------------------------

const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function showWork(work) {
  const card = $("result").content.firstElementChild.cloneNode(true), part = (selector) => card.querySelector(selector);
  const sound = state.sound, words = work.asked.ask.map(named).join(work.asked.mode === "nearest" ? " | " : " + ") || "All classes";
  card.dataset.work = work.id;
  part("h2").textContent = words + work.asked.against.map((item) => `, not ${named(item)}`).join("");
  const gone = async () => {
    if (state.active && card.contains(state.active.element)) stop();
    state.tracks = state.tracks.filter((track) => !card.contains(track.element));
    card.remove();
    await json(`works/${work.id}`, { method: "DELETE" }).catch((error) => say("message-ask", error.message));
  };
  part(".drop-result").onclick = part(".cancel").onclick = gone;
  part(".drop-result").hidden = true;
  $("results").prepend(card);
  const began = performance.now();
  try {
    while (["waiting", "running"].includes(work.state) && card.isConnected) {
      const bar = part("progress"), left = (performance.now() - began) / 1000 * (1 / work.done - 1);
      if (work.done > 0) bar.value = work.done; else bar.removeAttribute("value");
      part(".working .note").textContent = work.state === "waiting" ? (state.model.ready ? "Waiting for the one before …" : "The model is being loaded …")
        : work.done > 0 && left > 4 ? `${Math.round(100 * work.done)} %, about ${left < 90 ? `${Math.round(left)} s` : `${Math.round(left / 60)} min`} left` : "Separating …";
      await wait(250);
      work = await json(`works/${work.id}`);
    }
  } catch (error) {
    work = { ...work, state: "failed", error: error.message };
  }
  if (!card.isConnected) return;
  part(".working").hidden = true;
  part(".drop-result").hidden = false;
  const lines = [work.error, ...work.notes].filter(Boolean);
  part(".message").hidden = !lines.length;
  part(".message").classList.toggle("bad", work.state === "failed");
  part(".message").textContent = lines.join(". ");
  if (work.state !== "done" || sound !== state.sound) return;
  for (const found of work.tracks) {
    const label = found.name === "target" ? "Target" : found.name === "rest" ? "Rest" : found.name;
    const track = new Track(found, label, state.tracks[0]);
    track.save(`${stem(sound.title)}.${found.name}.${work.asked.format}`);
    track.score(found.presence);
    part(".tracks").append(track.element);
    state.tracks.push(track);
    track.place();
    track.load();
  }
  part("details").hidden = false;
  part("pre").textContent = command(work, sound);
}

function command(work, sound) {
  const weak = state.model.task === "weak", name = `${stem(sound.title)}.`, end = `.${work.asked.format}`;
  const query = (item) => item.class ? `class:${item.class}` : (state.sounds.get(item.sound)?.title ?? "EXAMPLE") + ("start" in item ? `@${exact(item.start)}-${exact(item.end)}` : "");
  const words = ["espnet2-ext separate", quoted(sound.title), ...work.asked.ask.map((i) => `--query ${quoted(query(i))}`), ...work.asked.against.map((i) => `--not ${quoted(query(i))}`), ...(work.asked.mode === "nearest" ? ["--mode nearest"] : []), ...(work.asked.gate ? ["--gate"] : []),
    `--bundle ${quoted(state.model.path)}`, `-o ${quoted(weak ? "out/" : `${name}target${end}`)}`, `--residual ${quoted(`${name}rest${end}`)}`];
  return words.join(" ");
}

// ---- the page -----------------------------------------------------------------------------------

async function ready() { // until the model is loaded
  const words = () => `${state.model.name}, ${state.model.fs ? `${+(state.model.fs / 1000).toFixed(2)} kHz` : ""}${state.model.ready ? "" : " · loading …"}`;
  for (;;) {
    $("model").textContent = `Model: ${words()}`;
    $("gated").hidden = !state.model.gate;
    if (state.model.ready) return;
    await wait(500);
    state.model = (await json("state").catch(() => ({ model: state.model }))).model;
  }
}

function classes() {
  const { task, classes } = state.model, weak = task === "weak";
  $("ways").hidden = weak;
  $("weak-note").hidden = !weak;
  $("weak-note").textContent = `This model knows its classes and needs no example: ${classes.join(", ")}. All are separated at once.`;
  $("class-row").hidden = !classes.length;
  $("class-note").textContent = classes.length ? `One of ${classes.length} that the model knows, without an example.`
    : "This model holds no queries of classes; `espnet2-ext calibrate` makes them.";
  $("class").placeholder = `such as ${classes[0] ?? ""}`;
  $("classes").replaceChildren(...classes.map((name) => new Option(name, name)));
}

async function begin() {
  state.known = json("state").then(({ model, limits }) => Object.assign(state, { model, limits }));
  mix();
  dark.onchange = () => { mix(); state.tracks.forEach((track) => track.paint()); };
  const takeMix = (files) => take(files[0], $("drop-mix"), "message-mix", openRecording);
  const takeExamples = async (files) => {
    for (const file of files) await take(file, $("drop-example"), "message-ask", (sound) => add({ sound: sound.id, not: false }));
  };
  zone($("drop-mix"), takeMix);
  zone($("drop-example"), takeExamples);
  document.ondragover = (e) => e.preventDefault(); // a file beside a zone is not opened in place of the page
  document.ondrop = (e) => {
    e.preventDefault();
    if (e.dataTransfer.files.length) (state.sound && state.model.task !== "weak" && $("ask").contains(e.target) ? takeExamples : takeMix)([...e.dataTransfer.files]);
  };
  $("another").onclick = () => { $("drop-mix").hidden = false; $("file-mix").click(); };
  $("other").onchange = () => reopen($("other").value).catch((error) => say("message-mix", error.message));
  $("zoom-in").onclick = () => view.mark ? show(view.mark[0] - 0.25 * (view.mark[1] - view.mark[0]), view.mark[1] + 0.25 * (view.mark[1] - view.mark[0])) : zoom(0.5);
  $("zoom-out").onclick = () => zoom(2);
  $("zoom-all").onclick = () => show(0, state.sound.seconds);
  $("pan").oninput = () => {
    const wide = view.end - view.start, start = $("pan").value / 1000 * (state.sound.seconds - wide);
    show(start, start + wide);
  };
  for (const id of ["from", "to"]) $(id).oninput = () => {
    const [a, b] = [parsed($("from").value), parsed($("to").value)];
    view.mark = a < b && b <= state.sound.seconds ? [a, b] : null;
    wishes();
    place();
  };
  $("way-span").onsubmit = (e) => { e.preventDefault(); addSpan(); };
  $("way-class").onsubmit = (e) => {
    e.preventDefault();
    const name = $("class").value.trim(), known = state.model.classes.find((c) => c.toLowerCase() === name.toLowerCase());
    if (!known) return say("message-ask", name ? `${name}: the model knows no class of this name; type a part of it to see those that it knows` : "Type the name of a class.");
    $("class").value = "";
    add({ class: known, not: false });
  };
  $("separate").onclick = separate;
  try {
    await state.known;
  } catch (error) {
    return say("message-mix", error.message);
  }
  $("limits").textContent = `WAV, FLAC, MP3 and others, up to ${gb(state.limits.bytes)} GB and ${+(state.limits.seconds / 3600).toFixed(2)} h. It stays on this machine.`;
  classes();
  const before = JSON.parse(sessionStorage.getItem("page"));
  if (before) {
    before[1].forEach((id) => recordings.add(id));
    state.asked = before[2];
    await reopen(before[0]).catch((error) => say("message-mix", error.message));
  }
  await ready();
}

begin();
