
"use strict";
const STAGES = ["queue", "decode", "recover", "tail"], KEPT = 60, EVERY = 1000, PICTURES = 8;
const $ = (id) => document.getElementById(id);
const cards = new Map();

function make(name, attributes, ...children) {
  const svg = name === "svg" || name === "path";
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function scaled(value, unit) {
  if (value === null || value === undefined) return ["–", ""];
  for (const [factor, letter] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]])
    if (value >= factor) return [(value / factor).toPrecision(3), letter + unit];
  return [value >= 100 ? value.toFixed(0) : value.toPrecision(value >= 1 ? 3 : 2).replace(/\.?0+$/, ""), unit];
}

const share = (value) => value === null ? "–" : (100 * value).toFixed(value && value < 0.1 ? 1 : 0) + " %";
const ms = (value) => value === null ? "–" : value < 1000 ? value.toFixed(value < 10 ? 1 : 0) + " ms" : (value / 1000).toFixed(1) + " s";

function since(seconds) {
  if (seconds < 90) return Math.round(seconds) + " s";
  if (seconds < 5400) return Math.round(seconds / 60) + " min";
  return (seconds / 3600).toFixed(1) + " h";
}

function tile(label, value, unit) {
  return make("div", {class: "tile"}, make("small", {}, label), make("strong", {}, value, make("i", {}, unit)));
}

function number(label) {
  const value = make("b");
  return {node: make("div", {}, make("small", {}, label), value), value};
}

function card(stream) {
  const path = make("path"), numbers = ["fps", "bits a frame", "late", "in flight"].map(number);
  const bars = STAGES.map((stage) => make("i", {class: stage}));
  const told = STAGES.map((stage) => make("span", {class: stage}));
  const made = {
    path, numbers, bars, told, history: [], sequence: null, asking: false,
    who: make("div", {class: "who"}), answer: make("div", {class: "answer"}), panels: make("div", {class: "panels"}),
  };
  made.node = make("section", {class: "card", "data-name": stream.name}, make("div", {class: "spec"}, stream.spec),
    made.who, make("div", {class: "numbers"}, ...numbers.map((one) => one.node)),
    make("svg", {class: "spark", viewBox: "0 0 59 30", preserveAspectRatio: "none", role: "img",
                 "aria-label": "fps of the last minute"}, path),
    make("div", {class: "bar"}, ...bars), make("div", {class: "stages"}, ...told), made.answer, made.panels);
  return made;
}

function show(one, stream) {
  one.node.classList.toggle("away", stream.peer === null);
  const where = stream.peer === null ? "without a connection" : stream.peer;
  const counts = [`${stream.answered} answered`, stream.late_total && `${stream.late_total} late`,
                  stream.failed_total && `${stream.failed_total} failed`].filter(Boolean).join(", ");
  one.who.replaceChildren(...[stream.name, where, since(stream.seconds), counts].map((text) => make("span", {}, text)));
  const values = [stream.fps.toFixed(1), scaled(stream.bits, "").join(" "), share(stream.late),
                  `${stream.in_flight} / ${stream.window}`];
  values.forEach((value, i) => { one.numbers[i].value.textContent = value; });
  one.numbers[2].value.classList.toggle("bad", stream.late > 0.05);
  one.history.push(stream.fps);
  if (one.history.length > KEPT) one.history.shift();
  const top = Math.max(1, ...one.history), left = KEPT - one.history.length;
  one.path.setAttribute("d", one.history.map((fps, i) => `${i ? "L" : "M"}${left + i} ${(28 - 26 * fps / top).toFixed(1)}`).join(""));
  const spent = STAGES.map((stage) => stream.ms[stage]), whole = spent.reduce((sum, value) => sum + (value || 0), 0);
  STAGES.forEach((stage, i) => {
    one.bars[i].style.width = whole ? 100 * (spent[i] || 0) / whole + "%" : "0";
    one.told[i].textContent = `${stage} ${ms(spent[i])}`;
  });
  const answer = stream.answer;
  one.answer.replaceChildren(...(answer ? [make("b", {}, answer.name), ` ${(100 * answer.probability).toFixed(0)} %`,
    answer.boxes === null ? "" : `, ${answer.boxes} boxes`,
    answer.layers[1] > 1 ? `, ${answer.layers[0]} of ${answer.layers[1]} layers` : ""] : []));
}

const seen = (node) => { const box = node.getBoundingClientRect(); return box.bottom > -200 && box.top < innerHeight + 200; };

async function ask(path) {
  const answer = await fetch(path, {cache: "no-store"});
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

async function picture(name, one) {
  one.asking = true;
  try {
    const found = await ask(`/v1/streams/${name}/panels`);
    one.sequence = found.sequence;
    if (found.panels.length) one.panels.replaceChildren(...found.panels.map((panel) => {
      const image = make("img", {src: panel.src, alt: panel.title, width: panel.width, height: panel.height});
      image.classList.toggle("small", panel.width <= 256);
      return make("figure", panel.width > 3 * panel.height ? {class: "wide"} : {}, make("figcaption", {}, panel.title), image);
    }));
  } finally { one.asking = false; }
}

async function turn() {
  const told = await ask("/v1/streams");
  $("state").textContent = told.draining ? "draining" : `up ${since(told.seconds)}`;
  $("state").className = told.draining ? "bad" : "";
  const [rate, unit] = scaled(told.bits_per_s, "bit/s"), late = told.streams.map((one) => one.late).filter((x) => x !== null);
  $("tiles").replaceChildren(
    tile("streams", told.connected, told.kept ? `and ${told.kept} kept` : ""), tile("frames a second", told.fps.toFixed(1), ""),
    tile("arriving", rate, unit), tile("waiting", told.queued, late.length ? `most late ${share(Math.max(...late))}` : ""));
  $("about").textContent = `semcodec ${told.version}. Figures are of the last ${told.window_s} seconds. Answers: ${told.specs.join(", ")}.`;
  $("empty").hidden = told.streams.length > 0;
  $("address").textContent = location.origin.replace(/^http/, "ws");
  const names = new Set(told.streams.map((stream) => stream.name));
  for (const [name, one] of cards) if (!names.has(name)) { one.node.remove(); cards.delete(name); }
  for (const stream of told.streams) {
    if (!cards.has(stream.name)) { cards.set(stream.name, card(stream)); $("streams").append(cards.get(stream.name).node); }
    show(cards.get(stream.name), stream);
  }
  const due = told.streams.filter((stream) => {
    const one = cards.get(stream.name);
    return stream.shown !== null && stream.shown !== one.sequence && !one.asking && seen(one.node);
  });
  await Promise.all(due.slice(0, PICTURES).map((stream) => picture(stream.name, cards.get(stream.name))));
}

async function run() {
  for (;;) {
    const began = performance.now();
    if (!document.hidden) {
      try { await turn(); } catch (error) { $("state").textContent = "no answer from the server"; $("state").className = "bad"; }
    }
    await new Promise((resolve) => setTimeout(resolve, Math.max(200, EVERY - (performance.now() - began))));
  }
}
run();
