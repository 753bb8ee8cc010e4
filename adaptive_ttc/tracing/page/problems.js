// The problems of a run or of a server: figures, charts, the table, and the search tree of the one that is chosen.
// Text of models and clients only ever becomes a text node; trees come escaped from the template that drew them.
(() => {
  const by = (id) => document.getElementById(id);
  const given = JSON.parse(by("data").textContent);
  const model = { head: given.head, rows: new Map(), chosen: null, paused: false };
  const live = given.head.live;
  const SVG = "http://www.w3.org/2000/svg";
  const MOST_POINTS = 3000; // of a chart; of more, every second, third, ... is drawn

  const make = (name, attributes = {}, ...children) => {
    const one = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) one.setAttribute(key, value);
    one.append(...children);
    return one;
  };
  const draw = (name, attributes = {}, title = "") => {
    const one = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) one.setAttribute(key, value);
    if (title) one.append(Object.assign(document.createElementNS(SVG, "title"), { textContent: title }));
    return one;
  };
  const number = (value, digits = 0) =>
    value == null ? "" : value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  const price = (value) => (value == null ? "" : value === 0 ? "0" : value.toPrecision(2));
  const paint = (score) => (score == null ? "s-none" : `s-${Math.round(Math.min(Math.max(score, 0), 1) * 20)}`);
  const sum = (values) => values.reduce((a, b) => a + (b || 0), 0);
  const atWork = (row) => row.state === "at work";
  const agreement = (row) => (row.voters ? row.votes / row.voters : null);
  const hardness = (row) => (row.difficulty ? sum(row.difficulty.map((share, bin) => share * bin)) : null);
  const name = (row) => row.question || row.name || "problem";
  const stateOf = (row) => (row.correct === true ? "right" : row.correct === false && row.state === "answered" ? "wrong" : row.state);

  // ---- figures ----
  const card = (term, value, note, share) => {
    const told = make("dd", {}, make("strong", { class: "text" }, value));
    if (share != null) told.append(make("meter", { min: 0, max: 1, value: share, "aria-label": `${term}: share` }));
    if (note) told.append(make("span", { class: "note" }, note));
    return make("div", {}, make("dt", {}, term), told);
  };
  const cards = (rows) => {
    const head = model.head;
    const working = rows.filter(atWork).length;
    const graded = rows.filter((row) => row.correct != null);
    const right = graded.filter((row) => row.correct).length;
    const answered = rows.filter((row) => row.state === "answered").length;
    const agreed = rows.map(agreement).filter((one) => one != null);
    const decided = rows.flatMap((row) => row.decisions.map(([time, , at]) => [row.started + time, at]));
    const last = decided.sort((a, b) => a[0] - b[0]).at(-1);
    const settled = rows.length - working;
    const found = [
      live
        ? card("At work", number(working), `${number(settled)} lately settled`)
        : card("Problems", number(rows.length), `${number(answered)} answered`),
      graded.length
        ? card("Right", `${number((100 * right) / graded.length, 1)} %`, `${number(right)} of ${number(graded.length)}`, right / graded.length)
        : card("Answered", number(answered), settled ? `of ${number(settled)} settled` : ""),
      card("Spent", number(head.spent), head.unit || "", head.budget ? head.spent / head.budget : null),
      card("Left", head.left == null ? "no limit" : number(head.left), head.budget ? `of ${number(head.budget)}` : ""),
      card("Agreement", agreed.length ? `${number((100 * sum(agreed)) / agreed.length)} %` : "–", "of the votes, on average", agreed.length ? sum(agreed) / agreed.length : null),
      card(live ? "Price now" : "Last price", last ? price(last[1]) : "–", "gain per 1,000 units"),
    ];
    by("cards").replaceChildren(...found);
  };

  // ---- charts ----
  const chart = (id, width, height, label, parts) => {
    const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
    svg.append(...parts);
    by(id).replaceChildren(svg);
  };
  const note = (x, y, text, anchor = "start") => {
    const one = draw("text", { x, y, class: "label", "text-anchor": anchor });
    one.textContent = text;
    return one;
  };
  const empty = (id) => by(id).replaceChildren(make("p", { class: "hint" }, "Nothing to show yet."));

  const allocation = (rows) => {
    if (!rows.length) return empty("allocation");
    const [width, height, left, base] = [560, 150, 44, 128];
    const most = Math.max(1, ...rows.map((row) => row.spent || 0));
    const pitch = (width - left) / rows.length;
    const wide = Math.max(Math.min(pitch * 0.78, 34), Math.min(pitch, 1));
    const parts = [draw("line", { x1: left, x2: width, y1: base, y2: base, class: "axis" })];
    rows.forEach((row, index) => {
      const tall = Math.max(((row.spent || 0) / most) * (base - 14), 1.5);
      const title = `${name(row)}\n${number(row.spent || 0)} spent, ${stateOf(row)}`;
      const at = { x: left + pitch * index + (pitch - wide) / 2, y: base - tall, width: wide, height: tall };
      const bar = draw("rect", { ...at, class: `mass ${paint(row.right)}${atWork(row) ? " working" : ""}${row.id === model.chosen ? " chosen" : ""}` }, title);
      bar.dataset.problem = row.id;
      parts.push(bar);
    });
    const mean = sum(rows.map((row) => row.spent)) / rows.length;
    const level = base - (mean / most) * (base - 14);
    parts.push(
      draw("line", { x1: left, x2: width, y1: level, y2: level, class: "mean" }),
      note(left - 5, 18, number(most), "end"), note(left - 5, base, "0", "end"),
      ...(level > 32 && level < base - 14 ? [note(left - 5, level + 4, number(mean), "end")] : []),
      note(left, height - 6, "problems in order of arrival; colour: probability of being right"),
    );
    chart("allocation", width, height, `Units spent on each of ${rows.length} problems, at most ${number(most)}, ${number(mean)} on average; the table tells the same`, parts);
  };

  const prices = (rows) => {
    const all = rows.flatMap((row) => row.decisions.map(([time, , at]) => [row.started + time, at, row]));
    if (!all.length) return empty("price");
    const [width, height, left, base] = [330, 150, 44, 128];
    const every = Math.ceil(all.length / MOST_POINTS);
    const shown = all.filter((_, index) => index % every === 0);
    const times = shown.map((one) => one[0]);
    const [first, last] = [Math.min(...times), Math.max(...times)];
    const most = Math.max(...shown.map((one) => one[1])) || 1;
    const parts = [draw("line", { x1: left, x2: width, y1: base, y2: base, class: "axis" })];
    for (const [time, at, row] of shown) {
      const x = left + 5 + ((time - first) / (last - first || 1)) * (width - left - 10);
      const point = { cx: x.toFixed(1), cy: (base - (at / most) * (base - 18)).toFixed(1), r: 2.6 };
      parts.push(draw("circle", { ...point, class: `point${row.id === model.chosen ? " chosen" : ""}` }, `${price(at)}: ${name(row)}`));
    }
    parts.push(
      ...(shown.some((one) => one[1]) ? [note(left - 5, 18, price(most), "end")] : []), note(left - 5, base, "0", "end"),
      note(left, height - 6, "0 s"), note(width, height - 6, `${number(last - first, 1)} s`, "end"),
      note((left + width) / 2, height - 6, every > 1 ? `1 of ${every} decisions` : "at every decision", "middle"),
    );
    chart("price", width, height, `Price per 1,000 units at ${all.length} decisions, at most ${price(most)}`, parts);
  };

  const difficulty = (rows) => {
    const known = rows.filter((row) => row.difficulty);
    if (!known.length) return empty("difficulty");
    const bins = known[0].bins;
    const same = known.filter((row) => row.difficulty.length === bins.length);
    const shares = bins.map((_, bin) => sum(same.map((row) => row.difficulty[bin])) / same.length);
    const money = sum(same.map((row) => row.spent)) || 1;
    const spent = bins.map((_, bin) => sum(same.map((row) => row.difficulty[bin] * (row.spent || 0))) / money);
    const body = make("tbody");
    bins.forEach((bin, index) => {
      const bars = draw("svg", { viewBox: "0 0 100 16", class: "pair", "aria-hidden": "true", preserveAspectRatio: "none" });
      bars.append(
        draw("rect", { x: 0, y: 1, width: 100 * shares[index], height: 6, class: "of-problems" }),
        draw("rect", { x: 0, y: 9, width: 100 * spent[index], height: 6, class: "of-spending" }),
      );
      const cell = make("td", { class: "bars" });
      cell.append(bars);
      const percent = (share) => make("td", { class: "figure" }, `${number(100 * share)} %`);
      body.append(make("tr", {}, make("th", { scope: "row", class: "text" }, bin), percent(shares[index]), percent(spent[index]), cell));
    });
    const headings = make("tr", {}, make("th", { scope: "col" }, "level"), make("th", { scope: "col", class: "figure of-problems" }, "problems"), make("th", { scope: "col", class: "figure of-spending" }, "spent"), make("td"));
    by("difficulty").replaceChildren(make("table", {}, make("thead", {}, headings), body));
  };

  // ---- the table ----
  const lines = new Map();
  const line = (row) => {
    if (lines.has(row.id)) return lines.get(row.id);
    const button = make("button", { type: "button", tabindex: "-1", class: "text" });
    button.dataset.problem = row.id;
    const cells = { head: make("th", { scope: "row" }, button), state: make("td"), answer: make("td", { class: "text answer" }) };
    Object.assign(cells, { agreement: make("td"), right: make("td", { class: "figure" }), difficulty: make("td") });
    Object.assign(cells, { spent: make("td"), price: make("td", { class: "figure" }), why: make("td", { class: "text why" }) });
    const made = { element: make("tr", {}, ...Object.values(cells)), button, cells, version: null };
    lines.set(row.id, made);
    return made;
  };
  const bar = (share) => {
    const svg = draw("svg", { viewBox: "0 0 100 8", class: "mini", "aria-hidden": "true", preserveAspectRatio: "none" });
    svg.append(draw("rect", { width: 100, height: 8, class: "ground" }), draw("rect", { width: 100 * Math.min(share, 1), height: 8, class: "mass" }));
    return svg;
  };
  const posterior = (row) => {
    if (!row.difficulty) return [];
    const svg = draw("svg", { viewBox: "0 0 100 8", class: "mini", "aria-hidden": "true", preserveAspectRatio: "none" });
    let from = 0;
    row.difficulty.forEach((share, bin) => {
      const shade = paint(1 - bin / Math.max(1, row.difficulty.length - 1));
      svg.append(draw("rect", { x: 100 * from, width: 100 * share, height: 8, class: `mass ${shade}` }));
      from += share;
    });
    const likely = row.difficulty.indexOf(Math.max(...row.difficulty));
    return [svg, ` ${row.bins[likely]} ${number(row.difficulty[likely], 2)}`];
  };
  const fill = (row) => {
    const { element, button, cells, version } = line(row);
    const stamp = JSON.stringify(row);
    if (version === stamp) return;
    lines.get(row.id).version = stamp;
    element.classList.toggle("working", atWork(row));
    button.textContent = name(row);
    button.title = row.name || "";
    const state = stateOf(row);
    cells.state.replaceChildren(make("span", { class: `badge ${state.replace(" ", "-")}` }, state));
    cells.answer.textContent = row.answer ?? (atWork(row) ? "" : "–");
    const share = agreement(row);
    cells.agreement.replaceChildren(...(share == null ? [] : [bar(share), ` ${number(row.votes)} of ${number(row.voters)}`]));
    cells.right.textContent = row.right == null ? "" : number(row.right, 2);
    cells.difficulty.replaceChildren(...posterior(row));
    cells.spent.replaceChildren(...(row.budget ? [bar((row.spent || 0) / row.budget)] : []), ` ${number(row.spent || 0)}${row.budget ? ` of ${number(row.budget)}` : ""}`);
    cells.price.textContent = price(row.price);
    cells.why.textContent = row.error || (atWork(row) ? row.action || row.strategy || "" : row.why || "");
    cells.why.title = cells.why.textContent;
  };

  const orders = {
    arrival: () => 0,
    spent: (a, b) => (b.spent || 0) - (a.spent || 0),
    hard: (a, b) => (hardness(b) ?? -1) - (hardness(a) ?? -1),
    agreement: (a, b) => (agreement(a) ?? 2) - (agreement(b) ?? 2),
  };
  const table = (rows) => {
    by("table").classList.toggle("budgets", rows.some((row) => row.budget));
    const asked = by("find").value.trim().toLowerCase();
    const texts = (row) => [row.question, row.name, row.answer, stateOf(row)].join(" ").toLowerCase();
    const shown = (live ? [...rows].reverse() : rows).filter((row) => !asked || texts(row).includes(asked));
    shown.sort(orders[by("order").value]);
    shown.forEach(fill);
    const body = by("rows");
    const wanted = shown.map((row) => line(row).element);
    if (wanted.length !== body.children.length || wanted.some((one, index) => one !== body.children[index])) {
      const at = body.contains(document.activeElement) ? document.activeElement : null;
      body.replaceChildren(...wanted);
      if (at && at.isConnected) at.focus({ preventScroll: true });
    }
    for (const id of lines.keys()) if (!model.rows.has(id)) lines.delete(id);
    const buttons = shown.map((row) => line(row).button);
    const current = buttons.find((one) => one === document.activeElement)
      || buttons.find((one) => one.dataset.problem === model.chosen) || buttons[0];
    buttons.forEach((one) => {
      one.tabIndex = one === current ? 0 : -1;
      one.toggleAttribute("aria-current", false);
      if (one.dataset.problem === model.chosen) one.setAttribute("aria-current", "true");
    });
    by("none").hidden = shown.length > 0;
    by("none").textContent = rows.length ? "No problem is like that." : live ? "Nothing is being solved. Ask POST /v1/chat/completions, and it shows here." : "There are no problems.";
  };

  let due = false;
  const redraw = () => {
    if (due) return;
    due = true;
    requestAnimationFrame(() => {
      due = false;
      const rows = [...model.rows.values()];
      cards(rows);
      allocation(rows);
      prices(rows);
      difficulty(rows);
      table(rows);
    });
  };

  by("rows").addEventListener("keydown", (event) => {
    const all = [...by("rows").querySelectorAll("button")];
    const at = all.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + 10, PageUp: at - 10, Home: 0, End: all.length - 1 }[event.key];
    if (to === undefined || at < 0 || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const next = all[Math.min(Math.max(to, 0), all.length - 1)];
    all[at].tabIndex = -1;
    next.tabIndex = 0;
    next.focus({ preventScroll: true });
    next.scrollIntoView({ block: "nearest" });
  });
  document.addEventListener("click", (event) => {
    const one = event.target.closest("[data-problem]");
    if (one) choose(one.dataset.problem);
  });
  by("detail").addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !model.chosen || !lines.has(model.chosen)) return;
    lines.get(model.chosen).button.focus();
  });
  by("find").addEventListener("input", redraw);
  by("order").addEventListener("change", redraw);

  // ---- the chosen problem ----
  const say = (text) => { by("status").textContent = text; };
  const choose = (id) => {
    if (!model.rows.has(id)) return;
    const again = model.chosen === id;
    model.chosen = id;
    redraw();
    if (again && !live) return;
    if (!again) by("drawn").replaceChildren();
    by("detail").hidden = false;
    by("h-detail").textContent = `Search tree: ${name(model.rows.get(id))}`;
    show(again);
  };
  const put = (nodes, id) => {
    if (model.chosen !== id) return;
    const before = by("drawn").childElementCount ? searchTree.state() : null;
    by("drawn").replaceChildren(...nodes);
    searchTree.restore(before);
    if (!before) say(`The search tree of ${name(model.rows.get(id))} is shown below the table.`);
  };
  const parsed = (html) => new DOMParser().parseFromString(html, "text/html").body.childNodes;
  let shownVersion = null;
  const show = async () => {
    const id = model.chosen;
    if (live) return follow(id);
    const template = [...document.querySelectorAll("template[data-tree]")].find((one) => one.dataset.tree === id);
    put(template ? [template.content.cloneNode(true)] : [make("p", { class: "hint" }, "Its search tree is not in this file, which would be too large.")], id);
  };

  // ---- a server ----
  let key = null;
  try { key = live ? sessionStorage.getItem("adaptive-ttc key") : null; } catch { key = null; }
  const remember = (value) => {
    key = value;
    try { value ? sessionStorage.setItem("adaptive-ttc key", value) : sessionStorage.removeItem("adaptive-ttc key"); } catch { /* this tab forgets it */ }
    by("forget").hidden = !value;
  };
  const ask = (path, signal) =>
    fetch(path, { headers: key ? { Authorization: `Bearer ${key}` } : {}, cache: "no-store", credentials: "omit", referrerPolicy: "no-referrer", signal });
  const pause = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));
  const connection = (text, good) => {
    by("connection").textContent = text;
    by("connection").classList.toggle("good", Boolean(good));
  };

  let following = false;
  const follow = async (id) => {
    const row = model.rows.get(id);
    if (following || !row || shownVersion === `${id} ${row.version}`) return;
    following = true;
    try {
      const version = `${id} ${row.version}`;
      const reply = await ask(`live/${encodeURIComponent(id)}`);
      const text = await reply.text();
      if (reply.ok) {
        put(parsed(text), id);
        shownVersion = version;
      }
    } catch { /* the stream of events tells of a server that is gone */ }
    await pause(1);
    following = false;
    if (model.chosen && !model.paused) follow(model.chosen);
  };

  let told = 0;
  const announce = (settled) => {
    if (!settled.length || Date.now() - told < 5000) return;
    told = Date.now();
    const last = settled.at(-1);
    say(settled.length > 1 ? `${settled.length} problems settled.` : `Settled: ${name(last)}: ${last.answer ?? last.state}.`);
  };
  const apply = (message) => {
    model.head = { ...model.head, ...message.head };
    const settled = [];
    for (const row of message.problems) {
      const before = model.rows.get(row.id);
      if (before && atWork(before) && !atWork(row)) settled.push(row);
      model.rows.set(row.id, row);
    }
    if (message.order) model.rows = new Map(message.order.filter((id) => model.rows.has(id)).map((id) => [id, model.rows.get(id)]));
    announce(settled);
    redraw();
    if (live && model.chosen && !model.paused) follow(model.chosen);
  };

  const locked = (closed) => {
    by("key").hidden = !closed;
    by("main").hidden = by("pause").hidden = closed;
  };
  let controller = new AbortController();
  const listen = async (signal) => {
    const reply = await ask("live", signal);
    if (reply.status === 401) return "key";
    if (!reply.ok) {
      const said = await reply.json().catch(() => null);
      connection(said && said.error ? said.error.message : `the server says ${reply.status}`);
      return "refused";
    }
    locked(false);
    connection(model.paused ? "paused" : "live", !model.paused);
    const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return "ended";
      rest += value;
      const parts = rest.split("\n\n");
      rest = parts.pop();
      for (const part of parts) if (part.startsWith("data: ") && !model.paused) apply(JSON.parse(part.slice(6)));
    }
  };
  const stay = async (signal) => {
    for (let wait = 1; ; wait = Math.min(2 * wait, 10)) {
      let why = "gone";
      try { why = await listen(signal); } catch { /* the server is gone, or this was stopped */ }
      if (signal.aborted) return;
      if (why === "key") {
        const wrong = key !== null;
        leave();
        connection(wrong ? "that key is not known here" : "an API key is needed");
        locked(true);
        by("secret").focus();
        return;
      }
      if (why === "ended") wait = 1;
      if (why !== "refused") connection("not connected; trying again");
      await pause(wait);
      if (signal.aborted) return;
    }
  };
  const leave = () => {
    remember(null);
    model.rows.clear();
    model.chosen = shownVersion = null;
    model.head = given.head;
    by("detail").hidden = true;
    by("drawn").replaceChildren();
    redraw();
  };
  const start = () => {
    controller.abort();
    controller = new AbortController();
    stay(controller.signal);
  };

  if (live) {
    by("pause").addEventListener("click", () => {
      model.paused = !model.paused;
      by("pause").setAttribute("aria-pressed", String(model.paused));
      connection(model.paused ? "paused" : "live", !model.paused);
      if (!model.paused) start();
    });
    by("key").addEventListener("submit", (event) => {
      event.preventDefault();
      const value = by("secret").value.trim();
      by("secret").value = "";
      if (!value) return;
      remember(value);
      start();
    });
    by("forget").addEventListener("click", () => {
      leave();
      start();
    });
    by("forget").hidden = !key;
    redraw();
    start();
  } else {
    apply(given);
  }
})();
