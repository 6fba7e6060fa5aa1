// What every page of the console does by itself: live dot, times, theme, keys, parts that refresh.
"use strict";
(() => {
  const base = document.documentElement.dataset.base, $ = id => document.getElementById(id);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // --- live: the stream names what to fetch; a part says which state it has, and gets 204 for the same
  const live = on => { $("live").className = on ? "live on" : "live"; $("live").textContent = on ? "live" : "connecting"; };
  addEventListener("htmx:sse:after:connection", () => live(true));
  for (const gone of ["htmx:sse:error", "htmx:sse:close"]) addEventListener(gone, () => live(false));
  addEventListener("htmx:sse:before:connection", e => { if (e.detail.connection.attempt > 0) live(false); });
  addEventListener("htmx:config:request", e => {
    const { ctx } = e.detail, part = ctx.sourceElement?.closest?.("[data-have]");
    if (!part || part !== ctx.sourceElement || ctx.request.method !== "GET") return;
    if (document.hidden && part.id === "runs") e.preventDefault();
    ctx.request.headers["X-Have"] = part.dataset.have;
  });

  // --- times, in the reader's own zone
  const units = [[86400, "d"], [3600, "h"], [60, "min"]];
  const span = seconds => { const [size, unit] = units.find(([size]) => seconds >= size) || [1, "s"]; return Math.floor(seconds / size) + " " + unit; };
  const whole = at => new Date(at).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
  function times() {
    const now = Date.now();
    for (const t of all("time[data-at], time[data-ago], time[data-left]")) {
      const { at, ago, left } = t.dataset, instant = Number(at || ago || left);
      let text = whole(instant);
      if (ago) text = now - instant < 45e3 ? "just now" : span((now - instant) / 1e3) + " ago";
      if (left) text = instant > now ? span((instant - now) / 1e3) + " left" : span((now - instant) / 1e3) + " late";
      if (left) t.classList.toggle("late", instant <= now + 6e4);
      if (t.textContent !== text) t.textContent = text;
      if (!at) t.title = whole(instant);
    }
  }
  times();
  setInterval(times, 1000);
  addEventListener("htmx:after:swap", times);

  // --- theme: as the system, light, dark
  const themes = ["", "light", "dark"], named = { "": "as the system", light: "light", dark: "dark" };
  const theme = () => document.documentElement.dataset.theme || "";
  const shown = () => { $("theme").querySelector("span").textContent = named[theme()]; };
  function turn() {
    const next = themes[(themes.indexOf(theme()) + 1) % 3];
    if (next) document.documentElement.dataset.theme = next; else delete document.documentElement.dataset.theme;
    document.cookie = `roadworthy_theme=${next}; path=${base || "/"}; max-age=31536000; samesite=strict`;
    shown();
  }
  $("theme").addEventListener("click", turn);
  shown();

  // --- forms: one at a time, cleared once taken; what went wrong is said in #notice
  const note = (text, root) => { $("notice").replaceChildren(...(root ? [...root.childNodes] : [Object.assign(document.createElement("p"), { textContent: text })])); if (!root) setTimeout(() => $("notice").replaceChildren(), 5000); };
  addEventListener("submit", async e => {
    const form = e.target;
    if (!form.matches("form[data-act]")) return;
    e.preventDefault();
    if (form.dataset.busy) return;
    const by = e.submitter, body = new URLSearchParams(new FormData(form, by));
    if (by?.dataset.confirm && !confirm(by.dataset.confirm)) return;
    form.dataset.busy = "1";
    const sent = by?.getAttribute("formaction") + "?" + body;
    if (form.dataset.sent !== sent || !form.dataset.key) form.dataset.key = Date.now().toString(36) + Math.random().toString(36).slice(2);
    form.dataset.sent = sent;
    body.set("key", form.dataset.key);
    try {
      const r = await fetch(by?.getAttribute("formaction") || form.action, { method: "POST", body, headers: { "hx-request": "true" } });
      const text = await r.text();
      if (r.headers.get("content-type")?.includes("json")) return note(JSON.parse(text).message);
      const page = text ? new DOMParser().parseFromString(text, "text/html").body : null;
      if (!r.ok) return note("", page || document.createElement("p"));
      delete form.dataset.key;
      $("notice").replaceChildren();
      document.body.dispatchEvent(new CustomEvent("taken", { detail: { form, by, page, said: r.headers.get("x-said") } }));
      if (r.headers.get("x-said")) note(decodeURIComponent(r.headers.get("x-said")));
      if (r.headers.get("x-go")) location.assign(r.headers.get("x-go"));
    } catch { note("The server cannot be reached. Nothing was lost: try again."); }
    finally { delete form.dataset.busy; }
  });

  // --- the title says how many wait
  const plainTitle = document.title;
  const titled = () => { const badge = $("badge"); document.title = (badge.hidden || !badge.textContent ? "" : `(${badge.textContent}) `) + plainTitle; };
  addEventListener("htmx:after:swap", titled);

  // --- a word from the browser when another case has come and nobody looks at this page
  const tell = $("tell"), granted = () => "Notification" in window && Notification.permission === "granted";
  tell.hidden = !("Notification" in window) || Notification.permission !== "default";
  tell.addEventListener("click", async () => { await Notification.requestPermission(); tell.hidden = true; });
  let waiting = null;
  addEventListener("htmx:after:swap", () => {
    const now = Number($("badge").textContent) || 0;
    if (waiting !== null && now > waiting && document.hidden && granted()) new Notification("Somebody needs a person", { body: `${now} in the inbox`, tag: "roadworthy" });
    if ($("badge").dataset.have) waiting = now;
  });

  // --- keys
  const help = $("help");
  $("keys").addEventListener("click", () => help.showModal());
  const rows = () => all("[data-row]").filter(row => row.offsetParent);
  const target = row => row.matches("a") ? row : row.querySelector("a");
  function move(step) {
    const list = rows(), at = list.findIndex(row => row.contains(document.activeElement));
    const from = at >= 0 ? at : list.findIndex(row => row.matches("[aria-current]"));
    const next = list[from < 0 ? (step > 0 ? 0 : list.length - 1) : Math.min(list.length - 1, Math.max(0, from + step))];
    if (next) { target(next).focus(); next.scrollIntoView({ block: "nearest" }); }
  }
  let before = "";
  addEventListener("keydown", e => {
    const field = e.target.closest?.("input, textarea, select");
    if (e.key === "Escape" && field) return field.blur();
    if (field && e.key === "Enter" && (e.ctrlKey || e.metaKey) && field.form) return field.form.requestSubmit(field.form.querySelector("[data-main]") || undefined);
    if (field || e.ctrlKey || e.metaKey || e.altKey || help.open) return;
    const key = before + e.key;
    before = e.key === "g" ? "g " : "";
    if (before) return;
    const did = { "j": () => move(1), "k": () => move(-1), "?": () => help.showModal(), "t": turn, "g i": () => location.assign(base + "/inbox"), "g u": () => location.assign(base + "/runs") }[key];
    const button = all(`[data-key="${CSS.escape(e.key)}"]`).find(item => item.offsetParent);
    if (did) did(); else if (button) { if (button.matches("textarea, input, [data-focus]")) button.focus(); else button.click(); } else return;
    e.preventDefault();
  });
  addEventListener("click", e => { const row = e.target.closest?.("tr[data-row]"); if (row && !e.target.closest("a")) target(row).click(); });
})();
