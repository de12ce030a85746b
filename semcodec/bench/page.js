"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const SVG = document.querySelector("svg").namespaceURI;
const LIGHT = ["#2f6fde", "#e06c00", "#12936a", "#d6336c", "#7048e8", "#0891a8", "#a97a00", "#8a4b2d", "#5c8a00", "#6b7785"];
const DARK = ["#6ea4ff", "#ff9f4a", "#3fcf9b", "#ff7aa8", "#a68bff", "#3fc8de", "#e0b33a", "#d08a68", "#a3d14a", "#a8b3c0"];
const SHAPES = ["circle", "square", "triangle", "diamond"];
const DEVICE = ["#8fb8f7", "#5c94ee", "#3474da", "#1f57b3", "#6c7be0", "#4b52b8", "#93a0f0", "#2e3b8f"];
const SERVER = ["#ffd08a", "#ffb14e", "#f28f1c", "#d06f0b", "#a94f09"];

// --- making elements ---
function put(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") node.style.cssText = value;
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...(children || []).filter((child) => child !== null && child !== undefined));
  return node;
}
const html = (tag, attributes, ...children) => put(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => put(document.createElementNS(SVG, tag), attributes, children);

/** A spec that breaks between its components, else between arguments, and inside a word only where it must. */
function spec(text, tag = "span") {
  const word = (part) => [html("span", { class: part.length < 28 ? "word" : null }, part), html("wbr")];
  const items = text.split(/(?=\+[a-z])/).map((item) => html("span", {}, ...item.split(/(?<=[:,])/).flatMap(word)));
  return html(tag, { class: tag === "td" ? "spec left" : "spec" }, ...items);
}

// --- figures as text ---
const percent = (x, digits = 1) => (100 * x).toFixed(digits) + " %";
const score = (x) => (100 * x).toFixed(1) + " " + state.group.unit;
const trim = (x) => String(+x.toPrecision(3));
function size(bytes) {
  if (bytes >= 999.5e3) return trim(bytes / 1e6) + " MB";
  return bytes >= 999.5 ? trim(bytes / 1e3) + " kB" : trim(bytes) + " B";
}
function time(ms) {
  if (ms >= 999.5) return (ms >= 99995 ? Math.round(ms / 1e3) : trim(ms / 1e3)) + " s";
  return ms < 0.01 ? (ms ? "< 0.01 ms" : "0 ms") : trim(ms) + " ms";
}
const rateText = (mbps) => (mbps < 0.9995 ? trim(mbps * 1e3) + " kbit/s" : trim(mbps) + " Mbit/s");
const exact = (x) => x.toLocaleString("en", { maximumFractionDigits: 1 });
const sum = (stages) => Object.values(stages).reduce((a, b) => a + b, 0);
const link = (bytes, mbps) => (bytes * 8e-3) / mbps;
const total = (point, mbps) => sum(point.device) + link(point.bytes, mbps) + sum(point.server);

// --- state ---
const state = { group: data.groups[0], off: new Set(), chosen: [], view: "all", share: 1, mbps: 10, sort: "bytes", down: false, all: false };
const dark = () => document.documentElement.dataset.theme === "dark";
const colour = (i) => (dark() ? DARK : LIGHT)[i % LIGHT.length];
const label = (group) => [group.data, group.split].filter(Boolean).join(", ");

/** Points whose device computes no more than the control allows; one that does not say is shown while all are. */
const allowed = () => state.group.points.filter((p) => state.share >= 1 || (p.share !== null && p.share <= state.share));
/** The Pareto front of what is allowed: "front" of every point, which are in order of bytes. */
function refront() {
  let best = -1;
  for (const p of state.group.points) p.front = false;
  for (const p of allowed()) if (p.accuracy > best) [best, p.front] = [p.accuracy, true];
}
function choose(point) {
  const at = state.chosen.indexOf(point);
  if (at >= 0) state.chosen.splice(at, 1);
  else state.chosen.push(point);
  draw();
}
/** Followed points in order of bytes; their numbers tell those of one curve, and so of one colour, apart. */
const followed = () => allowed().filter((p) => state.chosen.includes(p));
const numberOf = (point) => followed().indexOf(point) + 1;

// --- tooltip ---
function tip(event, ...children) {
  const box = $("tip");
  box.replaceChildren(...children);
  box.hidden = false;
  const { width, height } = box.getBoundingClientRect();
  const left = event.clientX + 16 + width > innerWidth - 8 ? event.clientX - width - 16 : event.clientX + 16;
  const top = event.clientY + 14 + height > innerHeight - 8 ? event.clientY - height - 14 : event.clientY + 14;
  box.style.left = Math.max(8, Math.min(left, innerWidth - width - 8)) + "px";
  box.style.top = Math.max(8, top) + "px";
}
const untip = () => ($("tip").hidden = true);
const leave = (event) => event.pointerType !== "touch" && untip(); // a finger that is lifted leaves, too
const rows = (pairs) => html("table", {}, ...pairs.map((pair) => html("tr", {}, ...pair.map((cell) => html("td", {}, cell)))));
function told(point) {
  const pairs = [
    [state.group.metric_name, score(point.accuracy) + `  (${score(point.low)} to ${score(point.high)})`],
    ["bytes", exact(point.bytes)],
  ];
  if (point.parts) pairs.push(["payload + side + header", point.parts.map((part) => exact(part)).join(" + ")]);
  if (point.ratio) pairs.push(["smaller than 8-bit pixels", trim(point.ratio) + " times"]);
  if (point.sent < 1) pairs.push(["samples sent", percent(point.sent)]);
  if (point.share !== null) pairs.push(["device's share of the whole", point.share.toFixed(3)]);
  pairs.push(["device, server", time(sum(point.device)) + ", " + time(sum(point.server))]);
  pairs.push(["at " + rateText(state.mbps), time(total(point, state.mbps))]);
  pairs.push(["curve", state.group.curves[point.curve]]);
  return [spec(point.spec), rows(pairs)];
}

// --- axes ---
const logScale = (low, high, from, to) => {
  const [a, b] = [Math.log10(low), Math.log10(high)];
  return (x) => from + ((Math.log10(x) - a) / (b - a)) * (to - from);
};
const linear = (low, high, from, to) => (x) => from + ((x - low) / (high - low)) * (to - from);
function logTicks(low, high, dense) {
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
    for (let digit = 1; digit < 10; digit++) {
      const at = digit * 10 ** power;
      if (at >= low * 0.9999 && at <= high * 1.0001) ticks.push({ at, major: digit === 1, text: digit === 1 || (dense && (digit === 2 || digit === 5)) });
    }
  return ticks;
}
function linearTicks(low, high, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((digit) => digit * power).find((s) => s >= rough);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9; i++) ticks.push({ at: i * step, major: true, text: true });
  return ticks;
}
function frame(holder, height) {
  const root = holder.querySelector("svg"), width = Math.max(240, holder.clientWidth);
  root.setAttribute("viewBox", `0 0 ${width} ${height}`);
  root.setAttribute("height", height);
  root.replaceChildren();
  return { root, box: { left: 52, right: width - 14, top: 12, bottom: height - 42 }, narrow: width < 560 };
}
function axes({ root, box }, x, y, xTicks, yTicks, xText, yText, xName, yName) {
  for (const tick of xTicks) {
    root.append(svg("line", { class: tick.major ? "grid major" : "grid", x1: x(tick.at), x2: x(tick.at), y1: box.top, y2: box.bottom }));
    if (tick.text) root.append(svg("text", { x: x(tick.at), y: box.bottom + 17, "text-anchor": "middle" }, xText(tick.at)));
  }
  for (const tick of yTicks) {
    root.append(svg("line", { class: tick.major ? "grid major" : "grid", x1: box.left, x2: box.right, y1: y(tick.at), y2: y(tick.at) }));
    if (tick.text) root.append(svg("text", { x: box.left - 8, y: y(tick.at) + 4, "text-anchor": "end" }, yText(tick.at)));
  }
  root.append(svg("text", { class: "axis", x: (box.left + box.right) / 2, y: box.bottom + 36, "text-anchor": "middle" }, xName));
  const middle = (box.top + box.bottom) / 2;
  root.append(svg("text", { class: "axis", x: 11, y: middle, "text-anchor": "middle", transform: `rotate(-90 11 ${middle})` }, yName));
}
function mark(shape, x, y, r, attributes) {
  if (shape === "circle") return svg("circle", { cx: x, cy: y, r, ...attributes });
  const at = { square: [[-1, -1], [1, -1], [1, 1], [-1, 1]], triangle: [[0, -1.25], [1.15, 0.85], [-1.15, 0.85]], diamond: [[0, -1.35], [1.35, 0], [0, 1.35], [-1.35, 0]] }[shape];
  const scale = shape === "square" ? 0.9 * r : r;
  return svg("polygon", { points: at.map(([a, b]) => `${x + a * scale},${y + b * scale}`).join(" "), ...attributes });
}
const shapeOf = (curve) => SHAPES[Math.floor(curve / LIGHT.length) % SHAPES.length];

// --- accuracy against bytes ---
const VIEWS = { all: "all points", fair: "without outliers", front: "near the front" };
const quantile = (sorted, q) => sorted[Math.round(q * (sorted.length - 1))];
/** Bounds beyond which a value lies far from the rest: three times the middle half's width, as of Tukey's far outliers. */
function fences(values) {
  const sorted = [...values].sort((a, b) => a - b), [low, high] = [quantile(sorted, 0.25), quantile(sorted, 0.75)];
  return sorted.length < 5 ? [-Infinity, Infinity] : [low - 3 * (high - low), high + 3 * (high - low)];
}
/** The points of a view: what it leaves out is counted beside the control. */
function within(view, points) {
  if (view === "all") return points;
  if (view === "fair") {
    const sending = points.filter((p) => p.bytes > 0);
    const [[least, most], [worst]] = [fences(sending.map((p) => Math.log(p.bytes))), fences(points.map((p) => p.accuracy))];
    return points.filter((p) => p.front || (p.accuracy >= worst && (!p.bytes || (Math.log(p.bytes) >= least && Math.log(p.bytes) <= most))));
  }
  const floor = Math.min(...points.filter((p) => p.front).map((p) => p.low));
  return points.filter((p) => p.accuracy >= floor || !Number.isFinite(floor));
}
const visiblePoints = () => allowed().filter((point) => !state.off.has(point.curve));
function drawRate() {
  const visible = visiblePoints(), points = within(state.view, visible), lost = visible.length - points.length;
  $("hidden").textContent = lost ? `hides ${lost} of ${visible.length} points` : "";
  const narrow = $("rate").clientWidth < 560, it = frame($("rate"), narrow ? 340 : 440), { root, box } = it;
  root.onpointermove = root.onpointerdown = root.onclick = null;
  if (!points.length) return;
  const sending = points.filter((point) => point.bytes > 0), none = points.length > sending.length;
  const bytes = sending.map((point) => point.bytes);
  let low = Math.min(...bytes) / 1.25, high = Math.max(...bytes) * 1.25;
  if (!bytes.length) [low, high] = [1, 10];
  if (high / low < 4) [low, high] = [low / 2, high * 2];
  const start = box.left + (none ? 46 : 0);
  const log = logScale(low, high, start, box.right), x = (value) => (value > 0 ? log(value) : box.left + 16);
  const shown = (point) => state.all || point.front;
  let bottom = Math.min(...points.map((p) => (shown(p) ? p.low : p.accuracy))), top = Math.max(...points.map((p) => (shown(p) ? p.high : p.accuracy)));
  const pad = Math.max(0.01, (top - bottom) * 0.05);
  [bottom, top] = [Math.max(0, bottom - pad), Math.min(1, top + pad)];
  const whole = state.group.uncompressed.filter((u) => u.accuracy >= bottom - 0.1);
  for (const u of whole) [bottom, top] = [Math.min(bottom, u.accuracy), Math.min(1, Math.max(top, u.accuracy + pad / 2))];
  const y = linear(bottom, top, box.bottom, box.top);
  const ticks = linearTicks(100 * bottom, 100 * top, narrow ? 5 : 7).map((tick) => ({ ...tick, at: tick.at / 100 }));
  axes(it, x, y, logTicks(low, high, high / low < (narrow ? 60 : 3000)), ticks, size, (v) => +(100 * v).toFixed(2) + "", "bytes a sample", state.group.metric_name + " in " + state.group.unit);
  if (none) root.append(svg("text", { x: x(0), y: box.bottom + 17, "text-anchor": "middle" }, "none"));

  whole.forEach((u, i) => {
    const name = `uncompressed${state.group.uncompressed.length > 1 ? " " + u.name : ""}: ${score(u.accuracy)}`;
    root.append(svg("line", { x1: box.left, x2: box.right, y1: y(u.accuracy), y2: y(u.accuracy), stroke: "var(--soft)", "stroke-dasharray": "6 4" }));
    root.append(svg("text", { class: "base", x: box.right - 4, y: y(u.accuracy) + 14 + 13 * i, "text-anchor": "end" }, name));
  });
  for (const curve of new Set(points.map((p) => p.curve))) {
    let best = -1;
    const own = points.filter((p) => p.curve === curve && p.accuracy > best && ((best = p.accuracy), true));
    root.append(svg("polyline", { points: own.map((p) => `${x(p.bytes)},${y(p.accuracy)}`).join(" "), fill: "none", stroke: colour(curve), "stroke-width": 1.5, "stroke-opacity": 0.4 }));
  }
  const front = points.filter((p) => p.front);
  if (front.length) {
    let path = `M${x(front[0].bytes)},${y(front[0].accuracy)}`;
    for (const p of front.slice(1)) path += `H${x(p.bytes)}V${y(p.accuracy)}`;
    root.append(svg("path", { d: path + `H${box.right}`, fill: "none", stroke: "var(--ink)", "stroke-width": 1.6, "stroke-opacity": 0.75, "stroke-linejoin": "round" }));
  }
  for (const p of points.filter(shown))
    root.append(svg("path", { d: `M${x(p.bytes)},${y(Math.max(p.low, bottom))}V${y(p.high)}m-3,0h6` + (p.low >= bottom ? `M${x(p.bytes) - 3},${y(p.low)}h6` : ""), stroke: colour(p.curve), "stroke-opacity": p.front ? 0.75 : 0.35, fill: "none" }));
  for (const p of [...points].sort((a, b) => a.front - b.front)) {
    const ring = state.chosen.includes(p);
    if (ring) root.append(svg("circle", { cx: x(p.bytes), cy: y(p.accuracy), r: 9.5, fill: "none", stroke: colour(p.curve), "stroke-width": 2.2 }),
      svg("text", { class: "base", x: x(p.bytes) + 9, y: y(p.accuracy) - 8 }, String(numberOf(p))));
    root.append(mark(shapeOf(p.curve), x(p.bytes), y(p.accuracy), p.front ? 5.2 : 4, { fill: colour(p.curve), "fill-opacity": p.front ? 1 : 0.6, stroke: "var(--card)", "stroke-width": p.front ? 1.5 : 0.8 }));
  }
  const halo = root.appendChild(svg("circle", { r: 12, fill: "none", stroke: "var(--ink)", "stroke-width": 1.5, visibility: "hidden" }));
  const nearest = (event) => {
    const edge = root.getBoundingClientRect(), [px, py] = [event.clientX - edge.left, event.clientY - edge.top];
    let found = null, least = 30;
    for (const p of points) {
      const away = Math.hypot(x(p.bytes) - px, y(p.accuracy) - py) - (p.front ? 2 : 0);
      if (away < least) [found, least] = [p, away];
    }
    return found;
  };
  root.onpointermove = root.onpointerdown = (event) => {
    const found = nearest(event);
    root.style.cursor = found ? "pointer" : "";
    halo.setAttribute("visibility", found ? "visible" : "hidden");
    if (!found) return untip();
    put(halo, { cx: x(found.bytes), cy: y(found.accuracy) });
    tip(event, ...told(found));
  };
  root.onpointerleave = (event) => { if (event.pointerType !== "touch") { halo.setAttribute("visibility", "hidden"); untip(); } };
  let touched = null; // the first tap tells, the second chooses
  root.onclick = (event) => {
    const found = nearest(event), again = found === touched;
    touched = found;
    if (found && (event.pointerType !== "touch" || again)) choose(found);
  };
}
function drawCurves() {
  const chips = state.group.curves.map((name, i) => {
    const count = allowed().filter((p) => p.curve === i).length;
    const toggle = () => { state.off.has(i) ? state.off.delete(i) : state.off.add(i); draw(); };
    return html("button", { type: "button", "aria-pressed": String(!state.off.has(i)), onclick: toggle },
      svg("svg", { viewBox: "-6 -6 12 12", "aria-hidden": "true" }, mark(shapeOf(i), 0, 0, 4.4, { fill: colour(i) })), name, html("em", {}, String(count) + (i === state.group.anchor ? ", anchor" : "")));
  });
  $("curves").replaceChildren(...chips);
}

// --- completion time against rate ---
function timeLines() {
  const lines = followed().map((p) => ({ name: p.spec, point: p, at: (mbps) => total(p, mbps), stroke: colour(p.curve), dash: null }));
  state.group.baselines.forEach((b, i) =>
    lines.push({ name: b.label, at: (mbps) => b.device_ms + link(b.bytes, mbps) + b.server_ms, stroke: "var(--soft)", dash: ["7 4", "2 4", "10 3 2 3", "4 2"][i % 4] }));
  return lines;
}
function drawTime() {
  const narrow = $("time").clientWidth < 560, it = frame($("time"), narrow ? 320 : 400), { root, box } = it, lines = timeLines();
  if (!lines.length) return;
  const ends = lines.flatMap((line) => [line.at(0.1), line.at(1000)]).filter((ms) => ms > 0);
  const low = Math.min(...ends) / 1.4, high = Math.max(...ends) * 1.4;
  const x = logScale(0.1, 1000, box.left, box.right), y = logScale(low, high, box.bottom, box.top);
  axes(it, x, y, logTicks(0.1, 1000, !narrow), logTicks(low, high, high / low < 300), (v) => trim(v), (v) => (v >= 1000 ? trim(v / 1000) + " s" : trim(v)), "link rate in Mbit/s", "completion time in ms");
  root.append(svg("line", { x1: x(state.mbps), x2: x(state.mbps), y1: box.top, y2: box.bottom, stroke: "var(--accent)", "stroke-dasharray": "3 3", "stroke-opacity": 0.7 }));
  for (const line of lines) {
    const at = Array.from({ length: 81 }, (_, i) => 10 ** (-1 + i / 20));
    root.append(svg("polyline", { points: at.map((mbps) => `${x(mbps)},${y(line.at(mbps))}`).join(" "), fill: "none", stroke: line.stroke, "stroke-width": line.dash ? 1.6 : 2.2, "stroke-dasharray": line.dash, "stroke-linejoin": "round" }));
  }
  let place = 0; // numbers stand apart along the lines, which run into one another
  for (const line of lines.filter((one) => one.point)) {
    const mbps = 10 ** (-0.9 + (0.42 * place++) % 2.4);
    root.append(svg("text", { class: "base number", x: x(mbps), y: y(line.at(mbps)) + 4, "text-anchor": "middle", style: `fill:${line.stroke}` }, String(numberOf(line.point))));
  }
  const cross = root.appendChild(svg("line", { y1: box.top, y2: box.bottom, stroke: "var(--faint)", visibility: "hidden" }));
  root.onpointermove = root.onpointerdown = (event) => {
    const px = Math.min(box.right, Math.max(box.left, event.clientX - root.getBoundingClientRect().left));
    const mbps = 10 ** (-1 + (4 * (px - box.left)) / (box.right - box.left));
    put(cross, { x1: px, x2: px, visibility: "visible" });
    const ranked = lines.map((line) => [line, line.at(mbps)]).sort((a, b) => a[1] - b[1]);
    tip(event, html("b", {}, rateText(mbps)), html("table", {}, ...ranked.map(([line, ms]) =>
      html("tr", {}, html("td", { style: "color:var(--ink)" }, html("span", { class: "swatch", style: `background:${line.stroke}` }), line.point ? spec(`${numberOf(line.point)}  ${line.name}`) : line.name), html("td", {}, time(ms))))));
  };
  root.onpointerleave = (event) => { if (event.pointerType !== "touch") { cross.setAttribute("visibility", "hidden"); untip(); } };
}
function drawChosen() {
  const points = followed().map((p) => html("div", {}, html("span", { class: "swatch", style: `background:${colour(p.curve)}` }), html("b", {}, String(numberOf(p))), spec(p.spec),
    html("em", {}, score(p.accuracy)), html("em", {}, size(p.bytes)), html("button", { type: "button", title: "take out", "aria-label": "take out " + p.spec, onclick: () => choose(p) }, "×")));
  const lines = timeLines().filter((line) => line.dash).map((line) => {
    const sample = svg("svg", { viewBox: "0 0 18 4", width: 18, height: 4, style: "flex:none;align-self:center" }, svg("line", { x1: 0, x2: 18, y1: 2, y2: 2, stroke: line.stroke, "stroke-width": 2, "stroke-dasharray": line.dash }));
    return html("div", {}, sample, html("span", {}, line.name));
  });
  $("chosen").replaceChildren(...points, ...lines);
}

// --- time by stage ---
function drawBars() {
  const of = (part) => [...new Set(state.group.points.flatMap((p) => Object.keys(p[part])))];
  const [device, server] = [of("device"), of("server")];
  const tint = { link: "var(--link)" };
  device.forEach((stage, i) => (tint[stage] = DEVICE[i % DEVICE.length]));
  server.forEach((stage, i) => (tint[stage] = SERVER[i % SERVER.length]));
  $("mbps").textContent = rateText(state.mbps);
  const longest = Math.max(...followed().map((p) => total(p, state.mbps)), 1e-9), seen = new Set();
  $("bars").replaceChildren(...followed().map((p) => {
    const all = total(p, state.mbps), stages = { ...p.device, link: link(p.bytes, state.mbps), ...p.server };
    const parts = Object.entries(stages).filter(([, ms]) => ms / longest > 0.0005).map(([stage, ms]) => {
      seen.add(stage);
      const where = stage === "link" ? "link" : stage in p.device ? "device" : "server";
      const hover = (event) => tip(event, html("b", {}, stage), rows([["where", where], ["time", time(ms)], ["share", percent(ms / all)]]));
      return html("div", { style: `flex:0 1 ${(100 * ms) / longest}%;background:${tint[stage]}`, onpointermove: hover, onpointerdown: hover, onpointerleave: leave });
    });
    return html("div", { class: "bar" }, html("div", {}, html("span", { class: "swatch", style: `background:${colour(p.curve)}` }), html("b", {}, String(numberOf(p))), spec(p.spec), html("b", {}, time(all))), html("div", { class: "track" }, ...parts));
  }));
  if (!followed().length) $("bars").append(html("p", { class: "hint" }, "Click a point above, or tick one in the table."));
  const chip = (stage) => html("span", {}, html("i", { class: "swatch", style: `background:${tint[stage]}` }), stage);
  const list = (name, stages) => { const here = stages.filter((s) => seen.has(s)); return here.length ? [html("span", { style: "color:var(--ink)" }, name + ":"), ...here.map(chip)] : []; };
  $("stages").replaceChildren(...list("device", device), ...(seen.has("link") ? [chip("link")] : []), ...list("server", server));
}

// --- table ---
const columns = [
  ["spec", "spec", (p) => p.spec, (p) => p.spec],
  ["accuracy", "accuracy", (p) => p.accuracy, (p) => score(p.accuracy)],
  ["interval", "95 % interval", (p) => p.low, (p) => `${(100 * p.low).toFixed(1)} – ${(100 * p.high).toFixed(1)}`],
  ["bytes", "bytes", (p) => p.bytes, (p) => exact(p.bytes)],
  ["ratio", "× 8-bit", (p) => p.ratio ?? Infinity, (p) => (p.ratio ? trim(p.ratio) : "–")],
  ["share", "device's share", (p) => p.share ?? Infinity, (p) => (p.share === null ? "–" : p.share.toFixed(3))],
  ["sent", "sent", (p) => p.sent, (p) => percent(p.sent, 0)],
  ["device", "device ms", (p) => sum(p.device), (p) => sum(p.device).toFixed(2)],
  ["server", "server ms", (p) => sum(p.server), (p) => sum(p.server).toFixed(2)],
  ["total", null, (p) => total(p, state.mbps), (p) => total(p, state.mbps).toFixed(1)],
  ["curve", "curve", (p) => state.group.curves[p.curve], (p) => state.group.curves[p.curve]],
];
function drawTable() {
  const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const match = (p) => words.every((word) => (p.spec + " " + state.group.curves[p.curve]).toLowerCase().includes(word)) && (!$("front").checked || p.front);
  const value = columns.find(([name]) => name === state.sort)[2], sign = state.down ? -1 : 1;
  const order = (a, b) => { const [u, v] = [value(a), value(b)]; return sign * (u < v ? -1 : u > v ? 1 : 0); };
  const found = allowed().filter(match).sort(order);
  const head = columns.map(([name, title]) => {
    const sorted = state.sort === name, text = title || "ms at " + rateText(state.mbps);
    const sort = () => { state.down = sorted ? !state.down : name === "accuracy"; state.sort = name; drawTable(); };
    return html("th", { class: name === "spec" || name === "curve" ? "left" : null, "aria-sort": sorted ? (state.down ? "descending" : "ascending") : null, scope: "col" },
      html("button", { type: "button", onclick: sort }, text + (sorted ? (state.down ? " ↓" : " ↑") : "")));
  });
  const body = found.map((p) => html("tr", { class: p.front ? "best" : null },
    html("td", {}, html("input", { type: "checkbox", checked: state.chosen.includes(p), "aria-label": "follow " + p.spec, onchange: () => choose(p) })),
    ...columns.map(([name, , , text]) => name === "spec" ? spec(p.spec, "td") : html("td", { class: name === "curve" ? "left curve" : null }, text(p)))));
  $("table").replaceChildren(html("thead", {}, html("tr", {}, html("th", {}), ...head)), html("tbody", {}, ...body));
  $("count").textContent = `${found.length} of ${state.group.points.length}`;
}

// --- what stands still ---
function drawTiles() {
  const { samples, metric_name } = state.group, points = allowed(), front = points.filter((p) => p.front);
  const best = front[front.length - 1], lean = front.find((p) => p.accuracy >= best.accuracy - 0.01);
  const tile = (name, figure, more, of) => html("div", { class: "tile" }, html("small", {}, name), html("strong", {}, figure, more ? html("i", {}, more) : null), of ? spec(of) : null);
  const lost = data.failures.length + data.skips.length;
  $("tiles").replaceChildren(
    tile("most accurate", score(best.accuracy), size(best.bytes), best.spec),
    tile(`fewest bytes within 1 ${state.group.unit === "%" ? "point" : state.group.unit} of it`, size(lean.bytes), score(lean.accuracy), lean.spec),
    tile("operating points", String(points.length), `on ${state.group.curves.length} curve${state.group.curves.length > 1 ? "s" : ""}, ${front.length} on the front`),
    tile("not measured", String(lost), lost ? `${data.failures.length} failed, ${data.skips.length} skipped` : "nothing failed"));
  $("title").textContent = label(state.group);
  $("lead").textContent = `${samples.toLocaleString("en")} samples, ${metric_name}, real bytes.`;
  const { headline, claims } = state.group;
  $("headline").textContent = headline ? headline + "." : "";
  $("claims").hidden = !claims.length;
  $("claims").querySelector("ul").replaceChildren(...claims.map((text) => html("li", {}, text)));
  $("claims").querySelector("summary").textContent = `The same of ${claims.length} other curve${claims.length > 1 ? "s" : ""}`;
}
function drawDeltas() {
  const found = state.group.deltas;
  $("bd").hidden = !found;
  if (!found) return;
  $("bd").querySelector("p").textContent = `Against ${found.anchor}, by PCHIP over each curve's own Pareto front. BD-rate: mean change of bytes at equal accuracy; BD-accuracy: mean change in points at equal bytes. Overlap: share of the accuracies of both that both reach; a small one says little. Beside each its 95 % interval, by resamples of the samples.`;
  const sign = (value) => (value > 0 ? "+" : "") + value.toFixed(2);
  const open = (ends) => ends && ends[0] * ends[1] <= 0; // an interval that holds nothing at all tells nothing
  const figure = (value, unit, good, ends) => html("td", { class: value === null || open(ends) ? null : value * good > 0 ? "good" : "worse" },
    value === null ? "–" : sign(value) + unit, ends ? html("em", { class: "ends" }, ` ${sign(ends[0])} to ${sign(ends[1])}`) : null);
  $("bd").querySelector("table").replaceChildren(
    html("thead", {}, html("tr", {}, ...["curve", "points", "BD-rate", "BD-accuracy", "overlap", ""].map((text, i) => html("th", { class: i === 0 || i === 5 ? "left" : null }, text)))),
    html("tbody", {}, ...found.rows.map((row) => html("tr", {}, html("td", { class: "left" }, row.curve), html("td", {}, String(row.points)), figure(row.rate, " %", -1, row.rate_interval), figure(row.accuracy, "", 1, row.accuracy_interval), html("td", {}, percent(row.overlap, 0)), html("td", { class: "left wrap" }, row.note)))));
}
function drawMissing() {
  const section = $("missing");
  section.hidden = !(data.failures.length + data.skips.length + data.warnings.length);
  const listed = (name, entries, kind) => {
    const by = new Map();
    for (const entry of entries) by.set(entry.reason, [...(by.get(entry.reason) || []), entry.spec]);
    const parts = [...by].sort((a, b) => b[1].length - a[1].length).map(([reason, specs]) => specs.length === 1
      ? html("p", { class: "one" }, spec(specs[0]), html("span", { class: kind }, reason))
      : html("details", {}, html("summary", { class: kind }, reason + " ", html("em", {}, String(specs.length))), html("ul", {}, ...specs.map((text) => html("li", {}, spec(text))))));
    const rest = parts.slice(4); // a long list is folded
    const folded = rest.length > 1 ? [html("details", {}, html("summary", {}, "and ", html("em", {}, `${rest.length} more reasons`)), ...rest)] : rest;
    return entries.length ? [html("h3", {}, `${name}: ${entries.length}`), ...parts.slice(0, 4), ...folded] : [];
  };
  section.querySelector(".body").replaceChildren(...listed("Failed", data.failures, "failed"), ...listed("Skipped: does not compose", data.skips), ...data.warnings.map((text) => html("p", { class: "hint" }, text)));
}
function drawPictures() {
  const { pictures } = state.group;
  $("pictures").hidden = !pictures.length;
  $("pictures").querySelector(".strip").replaceChildren(...pictures.map((one) => {
    const point = state.group.points.find((p) => p.spec === one.spec);
    const swatch = point ? html("span", { class: "swatch", style: `background:${colour(point.curve)}` }) : null;
    return html("figure", {}, html("img", { src: one.image, alt: one.title, loading: "lazy" }), html("figcaption", {}, html("b", {}, one.told), html("span", {}, one.title), one.spec ? html("div", {}, swatch, spec(one.spec)) : null));
  }));
}
function drawReproduce() {
  const fields = state.group.reproduce.fields.map(([name, value]) => [html("dt", {}, name), html("dd", {}, value)]).flat();
  $("reproduce").replaceChildren(...state.group.reproduce.commands.map((text) => html("pre", {}, html("code", {}, text))), html("dl", {}, ...fields));
}
function drawGroups() {
  if (data.groups.length < 2) return;
  $("groups").replaceChildren(...data.groups.map((group) => {
    const same = data.groups.filter((other) => label(other) === label(group)).length > 1;
    const text = label(group) + (same ? `, ${group.metric_name}, ${group.samples}` : "");
    return html("button", { type: "button", "aria-pressed": String(group === state.group), onclick: () => enter(group) }, text);
  }));
}
function drawShare() {
  const known = state.group.points.map((p) => p.share).filter((share) => share !== null), least = Math.min(...known);
  $("share").disabled = !known.length || least >= 1;
  $("share").min = Number.isFinite(least) ? Math.ceil(100 * least) / 100 : 0;
  $("share").value = state.share;
  $("most").textContent = state.share >= 1 ? "any" : `at most ${state.share.toFixed(2)}`;
}
function draw() { refront(); drawShare(); drawTiles(); drawCurves(); drawRate(); drawTime(); drawChosen(); drawBars(); drawTable(); drawPictures(); }
/** The view in which the front has room: near it, else what is not far out. */
function fitting(group) {
  const all = group.points.map((p) => p.accuracy), front = group.points.filter((p) => p.front).map((p) => p.low);
  return Math.max(...all) - Math.min(...front) < 0.4 * (Math.max(...all) - Math.min(...all)) ? "front" : "fair";
}
function enter(group) {
  Object.assign(state, { group, off: new Set(), share: 1, chosen: group.follow.map((i) => group.points[i]) });
  refront();
  state.view = $("view").value = fitting(group);
  drawGroups(); drawDeltas(); drawMissing(); drawReproduce(); draw();
}
document.documentElement.dataset.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
$("theme").onclick = () => { document.documentElement.dataset.theme = dark() ? "light" : "dark"; draw(); };
$("slider").value = Math.log10(state.mbps);
$("slider").oninput = (event) => { state.mbps = 10 ** +event.target.value; drawTime(); drawBars(); drawTable(); };
$("intervals").onchange = (event) => { state.all = event.target.checked; drawRate(); };
$("filter").oninput = $("front").onchange = drawTable;
for (const [name, text] of Object.entries(VIEWS)) $("view").append(html("option", { value: name }, text));
$("view").onchange = (event) => { state.view = event.target.value; drawRate(); };
$("share").oninput = (event) => { state.share = +event.target.value; draw(); };
addEventListener("scroll", untip, { passive: true });
addEventListener("pointerdown", untip, { capture: true });
let width = innerWidth;
addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; draw(); } });
enter(state.group);
