"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  const MINUS = "\u2212";

  function number(value) {
    if (value === null) return "–";
    const size = Math.abs(value);
    const digits = size >= 1000 ? 0 : size >= 100 ? 1 : size >= 10 ? 2 : 3;
    return value.toFixed(digits).replace("-", MINUS);
  }
  const signed = (value) => (value > 0 ? "+" : "") + number(value);
  const minus = (a, b) => (a === null || b === null ? null : a - b);

  function element(name, attributes = {}, text) {
    const svg = ["circle", "line", "text", "title"].includes(name);
    const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  }

  // The numbers of one category.
  at("numbers-category")?.addEventListener("change", (event) => {
    for (const body of document.querySelectorAll("tbody[data-category]")) {
      body.hidden = body.dataset.category !== event.target.value;
    }
  });

  // Cards: score, order, filter.
  const list = at("cards");
  const cards = [...list.children];
  const controls = { metric: at("metric"), of: at("of"), order: at("order"), category: at("category"), search: at("search") };
  list.classList.toggle("three", data.roles.length > 2);

  function value(row, metric, other) {
    const own = data.rows[row].candidate[metric];
    return other ? minus(own, data.rows[row][other][metric]) : own;
  }

  function visible() {
    return [...list.children].filter((card) => !card.hidden);
  }

  function arrange() {
    const metric = Number(controls.metric.value);
    const other = controls.of.value;
    const order = controls.order.value;
    const words = controls.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const category = controls.category?.value ?? "";
    let shown = 0;
    for (const card of cards) {
      const prompt = card.querySelector(".prompt").textContent.toLowerCase();
      const found = words.every((word) => prompt.includes(word));
      card.hidden = !found || (category !== "" && card.dataset.category !== category);
      shown += !card.hidden;
      const score = value(Number(card.dataset.row), metric, other);
      const change = element("span", { class: "change" }, other ? signed(score) : number(score));
      if (other && score !== null && score !== 0) change.classList.add(score > 0 ? "up" : "down");
      card.querySelector(".score").replaceChildren(change);
    }
    const key = (card) => value(Number(card.dataset.row), metric, other);
    const sign = order === "low" ? 1 : -1;
    const sorted = [...cards].sort((a, b) => {
      if (order === "drawn") return a.dataset.row - b.dataset.row;
      const [x, y] = [key(a), key(b)];
      if (x === null || y === null) return (x === null) - (y === null);
      return sign * (x - y) || a.dataset.row - b.dataset.row;
    });
    list.replaceChildren(...sorted);
    at("count").textContent = `${shown} of ${cards.length}`;
    at("nothing").hidden = shown > 0;
  }
  for (const control of Object.values(controls)) control?.addEventListener("input", arrange);
  for (const form of document.querySelectorAll("form")) form.addEventListener("submit", (event) => event.preventDefault());

  // One card, large.
  const viewer = at("viewer");
  let current = null;

  function show(card) {
    current = card;
    const row = Number(card.dataset.row);
    at("viewer-title").textContent = card.querySelector(".prompt").textContent;
    const place = visible().indexOf(card) + 1;
    at("viewer-meta").textContent = [card.dataset.category, `${place} of ${visible().length}`].filter(Boolean).join(" · ");
    at("viewer-strip").replaceChildren(...[...card.querySelectorAll(".shot")].map((shot) => shot.cloneNode(true)));
    const others = data.roles.filter((role) => role !== "candidate");
    at("viewer-scores").replaceChildren(...data.metrics.map((name, metric) => {
      const line = element("tr");
      line.append(element("th", { scope: "row" }, name));
      const cell = (label, text) => line.append(element("td", { class: "value", "data-label": label }, text));
      for (const role of data.roles) cell(role, number(data.rows[row][role][metric]));
      for (const other of others) cell(`${MINUS} ${other}`, signed(value(row, metric, other)));
      return line;
    }));
    if (!viewer.open) viewer.showModal();
  }

  function move(step) {
    const there = visible();
    if (there.length) show(there[(there.indexOf(current) + step + there.length) % there.length]);
  }

  for (const card of cards) card.querySelector(".open").addEventListener("click", () => show(card));
  at("previous").addEventListener("click", () => move(-1));
  at("next").addEventListener("click", () => move(1));
  at("close").addEventListener("click", () => viewer.close());
  viewer.addEventListener("click", (event) => event.target === viewer && viewer.close());
  viewer.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") move(-1);
    if (event.key === "ArrowRight") move(1);
  });
  viewer.addEventListener("close", () => current?.querySelector(".open").focus());

  // Prompts by two metrics.
  const scatter = at("scatter");
  const box = { left: 56, right: 628, top: 12, bottom: 314 };

  function scale(values, from, to) {
    let [low, high] = [Math.min(...values), Math.max(...values)];
    if (low === high) [low, high] = [low - 0.5, high + 0.5];
    const place = (v) => from + ((v - low) / (high - low)) * (to - from);
    // Round numbers: 1, 2 or 5 times a power of ten apart, some four of them.
    const raw = (high - low) / 4;
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((times) => times * power).find((width) => width >= raw);
    const digits = Math.max(0, -Math.floor(Math.log10(step)));
    const ticks = [];
    for (let tick = Math.ceil(low / step); tick * step <= high; tick++) ticks.push(tick * step);
    return { place, ticks, write: (tick) => tick.toFixed(digits).replace("-", MINUS) };
  }

  function plot() {
    const [across, up] = [Number(at("across").value), Number(at("up").value)];
    const points = data.roles.flatMap((role) => data.points
      .map((point) => ({ role, prompt: point.prompt, x: point.values[role][across], y: point.values[role][up] }))
      .filter((point) => point.x !== null && point.y !== null));
    scatter.replaceChildren();
    if (!points.length) return;
    const x = scale(points.map((p) => p.x), box.left + 8, box.right - 8);
    const y = scale(points.map((p) => p.y), box.bottom - 8, box.top + 8);
    for (const tick of x.ticks) {
      scatter.append(element("line", { class: "grid", x1: x.place(tick), x2: x.place(tick), y1: box.top, y2: box.bottom }));
      scatter.append(element("text", { class: "tick", x: x.place(tick), y: box.bottom + 16, "text-anchor": "middle" }, x.write(tick)));
    }
    for (const tick of y.ticks) {
      scatter.append(element("line", { class: "grid", x1: box.left, x2: box.right, y1: y.place(tick), y2: y.place(tick) }));
      scatter.append(element("text", { class: "tick", x: box.left - 6, y: y.place(tick) + 4, "text-anchor": "end" }, y.write(tick)));
    }
    scatter.append(element("text", { class: "axis-name", x: box.right, y: box.bottom + 36, "text-anchor": "end" }, `${data.metrics[across]} →`));
    scatter.append(element("text", { class: "axis-name", x: box.left + 6, y: box.top + 10 }, `↑ ${data.metrics[up]}`));
    for (const point of points) {
      const dot = element("circle", { class: `dot ${point.role}`, cx: x.place(point.x), cy: y.place(point.y), r: 4.5 });
      dot.append(element("title", {}, `${point.prompt} (${point.role})`));
      dot.addEventListener("click", () => { at("pointed").textContent = ` ${point.prompt} (${point.role}): ${number(point.x)}, ${number(point.y)}.`; });
      scatter.append(dot);
    }
    for (const role of data.roles) {
      const own = points.filter((point) => point.role === role);
      if (!own.length) continue;
      const mean = (key) => own.reduce((sum, point) => sum + point[key], 0) / own.length;
      scatter.append(element("circle", { class: `ring ${role}`, cx: x.place(mean("x")), cy: y.place(mean("y")), r: 9 }));
    }
    scatter.setAttribute("aria-label", `${points.length} dots: ${data.metrics[up]} against ${data.metrics[across]}`);
  }
  for (const id of ["across", "up"]) at(id).addEventListener("input", plot);

  arrange();
  plot();
})();
