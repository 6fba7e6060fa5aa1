// One run: its trace, answer, limits and what it waits for. Text of users and models only ever
// enters the page through textContent.
"use strict";
(() => {
  const base = document.documentElement.dataset.base, main = document.getElementById("run"), runId = main.dataset.run;
  const own = "/console/runs/" + encodeURIComponent(runId);
  const h = (tag, cls, ...kids) => {
    const el = document.createElement(tag);
    if (cls) el.className = cls;
    el.append(...kids.flat(9).filter(k => k !== null && k !== undefined && k !== false));
    return el;
  };
  const link = (href, ...kids) => { const a = h("a", "", ...kids); a.href = href; return a; };
  const usd = nanos => { const d = nanos / 1e9; return !nanos ? "$0" : "$" + (d >= 1 ? d.toFixed(2) : d >= .001 ? d.toFixed(4) : d.toPrecision(2)); };
  const num = n => Number(n).toLocaleString("en");
  const span = micros => micros < 1000 ? micros + " µs" : micros < 1e6 ? Math.round(micros / 1e3) + " ms" : micros < 6e7 ? (micros / 1e6).toFixed(2) + " s" : micros < 36e8 ? Math.round(micros / 6e7) + " min" : (micros / 36e8).toFixed(1) + " h";
  const when = micros => new Date(micros / 1e3).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
  const pill = status => h("span", "pill " + status, status);
  const OVER = ["completed", "partial", "stopped", "failed"];
  let streamed = "", opened = new Set(), timer = 0;
  function card(label, value, most, part) {
    const c = h("div", "card", h("small", "", label), h("b", "", value), most !== undefined && h("span", "", "/ " + most));
    if (part !== undefined) { const i = h("i", part >= .9 ? "hot" : ""); i.style.width = Math.min(100, part * 100) + "%"; c.append(h("div", "meter", i)); }
    return c;
  }

  // Waiting for people would squash everything else: gaps are drawn at most so wide.
  function scale(steps, now) {
    const busy = [];
    for (const s of steps.filter(s => s.kind !== "person").sort((a, b) => a.began - b.began)) {
      const end = s.ended ?? now, last = busy[busy.length - 1];
      if (last && s.began <= last[1]) last[1] = Math.max(last[1], end); else busy.push([s.began, end]);
    }
    const work = busy.reduce((sum, [a, b]) => sum + b - a, 0) || 1, most = Math.max(work * .2, 1000);
    let at = 0; const knots = [];
    busy.forEach(([a, b], i) => { if (i) at += Math.min(most, a - busy[i - 1][1]); knots.push([a, at]); at += b - a; knots.push([b, at]); });
    if (steps.some(s => s.kind === "person" && !s.ended)) knots.push([now, at += most]);
    const end = at || 1;
    return t => {
      let k = knots.findIndex(([x]) => x >= t);
      if (k < 0) return 1; if (!k) return 0;
      const [x0, y0] = knots[k - 1], [x1, y1] = knots[k];
      return (y0 + (x1 > x0 ? (t - x0) / (x1 - x0) : 1) * (y1 - y0)) / end;
    };
  }
  function show(value) {
    if (Array.isArray(value) && value.every(v => typeof v === "string")) return value.join(", ") || "–";
    return typeof value === "string" && value.length < 90 && !value.includes("\n") ? value : h("pre", "", typeof value === "string" ? value : JSON.stringify(value, null, 2));
  }
  function stepRow(s, at, now) {
    const end = s.ended ?? now, left = at(s.began), bar = h("i");
    bar.style.left = Math.min(99, left * 100) + "%";
    bar.style.width = Math.max(0, at(end) - left) * 100 + "%";
    const cost = s.settled + s.assumed, bad = ["error", "refused"].includes(s.state);
    const d = h("details", ["step", s.kind, s.state, s.turn ? "in" : "", bad ? "bad" : ""].join(" "),
      h("summary", "", h("span", "what", h("span", "tag", s.kind), h("span", "", s.title + (s.attempts > 1 ? " · " + s.attempts + " attempts" : ""))),
        h("span", "lane", bar), h("span", "n dim", end - s.began > 0 ? span(end - s.began) : ""), h("span", "n dim", s.reserved ? usd(s.reserved) : ""),
        h("span", "n", cost ? usd(cost) + (s.assumed ? "*" : "") : ""), h("span", "n dim", s.kind === "model" || cost ? usd(s.after) : "")));
    const facts = [["state", s.state], ["began", when(s.began)]];
    if (s.kind === "model") facts.push(["phase", s.phase], ["tokens", num(s.tokens[0]) + " in, " + num(s.tokens[1]) + " out"]);
    if (s.reserved || cost || s.kind === "model") facts.push(["money", "reserved " + usd(s.reserved) + ", settled " + usd(s.settled) + (s.assumed ? ", assumed " + usd(s.assumed) : "")], ["spent", usd(s.before) + " before → " + usd(s.after) + " after"]);
    facts.push(...s.troubles.map(t => ["trouble", t]), ...Object.entries(s.detail).filter(([, v]) => v !== "" && !(Array.isArray(v) && !v.length)).map(([k, v]) => [k.replaceAll("_", " "), v]));
    d.append(h("div", "box", h("dl", "", facts.filter(([, v]) => v !== "").map(([k, v]) => [h("dt", "", k), h("dd", "", show(v))]))));
    const id = s.key + s.kind + s.began;
    d.open = opened.has(id);
    d.ontoggle = () => d.open ? opened.add(id) : opened.delete(id);
    return d;
  }
  const ASKS = {
    approval: ["A call waits for approval", "Approve", "Reject"], version: ["The agent changed. Go on?", "Go on", "Stop the run"],
    failure: ["A call failed on every way it has", "Try again", "Leave it"], unknown_outcome: ["Did this call happen?", "It did not: run it", "Reject"],
  };
  function held(a) {
    const [title, yes, no] = ASKS[a.kind] || ASKS.unknown_outcome;
    const box = h("div", "card held", h("h2", "", title), h("div", "dim", a.reason), h("h3", "", a.tool), h("pre", "", JSON.stringify(a.arguments, null, 2)));
    const act = (label, decision, cls) => {
      const b = h("button", cls, label);
      b.onclick = async () => {
        b.disabled = true;
        const r = await fetch(base + own + "/approvals/" + encodeURIComponent(a.id), { method: "POST", headers: { "hx-request": "true" }, body: new URLSearchParams({ decision }) });
        if (!r.ok) box.append(h("p", "wrong", new DOMParser().parseFromString(await r.text(), "text/html").body.textContent));
        soon();
      };
      return b;
    };
    box.append(h("div", "acts", act(yes, "approve", "main"), act(no, "reject")));
    return box;
  }
  async function one() {
    const r = await fetch(base + own, { headers: { "hx-request": "true" } });
    if (!r.ok) throw new Error(new DOMParser().parseFromString(await r.text(), "text/html").body.textContent.trim());
    const { run, limits, result, steps } = await r.json(), now = OVER.includes(run.status) ? run.updated_at : Math.max(run.updated_at, Date.now() * 1e3), at = scale(steps, now);
    const turns = Math.max(0, ...steps.map(s => s.turn)), calls = steps.filter(s => s.kind === "tool" && ["ok", "error"].includes(s.state)).length;
    const spent = Math.max(0, ...steps.map(s => s.after)), models = steps.filter(s => s.kind === "model");
    const sum = i => models.reduce((n, s) => n + s.tokens[i], 0), cap = limits.usd === null ? null : Number(limits.usd);
    const active = result ? result.usage.seconds : null;
    const first = steps[0]?.detail.input, asked = typeof first === "string" ? first : first?.text || run.id;
    let turn = 0;
    const rows = steps.flatMap(s => { const head = s.turn > turn && h("div", "turn", "Turn " + s.turn); turn = Math.max(turn, s.turn); return [head, stepRow(s, at, now)]; });
    const status = card("Status", run.status);
    status.children[1].replaceWith(h("div", "", pill(run.status), h("span", "dim", " " + (run.reason && run.reason !== run.status ? run.reason.replaceAll("_", " ") : ""))));
    const text = result?.text || streamed, report = result?.report;
    document.title = asked.slice(0, 60) + " · Roadworthy";
    main.replaceChildren(
      h("div", "crumb", link(base + "/runs", "Runs"), " / " + run.pattern + " / " + run.user + (run.conversation ? " / " + run.conversation : "")), h("h1", "", asked),
      h("div", "cards", status, card("Active time", active === null ? "…" : span(active * 1e6), limits.seconds + " s", (active || 0) / limits.seconds),
        cap === null ? card("Cost", usd(spent)) : card("Cost", usd(spent), "$" + cap.toFixed(2), cap ? spent / 1e9 / cap : spent ? 1 : 0),
        card("Tokens in / out", num(sum(0)) + " / " + num(sum(1))), card("Turns", turns, limits.turns, turns / limits.turns), card("Tool calls", calls, limits.tool_calls, calls / limits.tool_calls)),
      h("div", "cols",
        h("div", "card", h("h2", "", "Trace", h("small", "", steps.length + " steps · " + models.length + " model calls · " + steps.reduce((n, s) => n + s.troubles.length, 0) + " failed attempts")),
          h("div", "row", h("span", "", "Step"), h("span", "", ""), h("span", "n", "time"), h("span", "n", "reserved"), h("span", "n", "cost"), h("span", "n", "spent after")), rows,
          steps.some(s => s.assumed) && h("p", "dim", "* charged at worst case, because the true amount is unknown")),
        h("div", "beside", (result && run.status === "waiting" ? result.waiting : []).map(held),
          h("div", "card", h("h2", "", run.status === "waiting" ? "Said so far" : "Answer"), text ? h("div", "text", text) : h("div", "dim", "Nothing yet."),
            report?.done.length > 0 && [h("h3", "", "Done"), h("div", "", report.done.join(", "))], report?.missing.length > 0 && [h("h3", "", "Missing"), h("div", "text", report.missing.join("\n"))], report?.why && [h("h3", "", "Why"), h("div", "text", report.why)]),
          h("div", "card", h("h2", "", "Limits", h("small", "", "of this run")), h("dl", "kv", Object.entries(limits).flatMap(([k, v]) => [h("dt", "", k.replaceAll("_", " ")), h("dd", "", v === null ? "none" : k === "usd" ? "$" + v : num(v))]))),
          h("div", "card", h("h2", "", "Run"), h("dl", "kv", h("dt", "", "id"), h("dd", "", h("code", "", run.id)), h("dt", "", "started"), h("dd", "", when(run.created_at)), h("dt", "", "tenant"), h("dd", "", run.tenant || "–"), h("dt", "", "segments"), h("dd", "", run.segment))))));
  }
  const soon = () => { timer = timer || setTimeout(() => { timer = 0; one().catch(fail); }, 120); };
  const fail = error => { if (!main.querySelector(".cards")) main.replaceChildren(h("div", "card empty", error.message)); };
  document.body.addEventListener("run", soon);
  document.body.addEventListener("text", e => { const t = JSON.parse(e.detail.data); streamed = t.offset ? streamed + t.text : t.text; soon(); });
  one().catch(fail);
})();
