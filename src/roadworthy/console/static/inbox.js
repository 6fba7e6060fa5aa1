// The inbox: sheets of the case, the suggested reply, one pane at a time on a phone.
"use strict";
(() => {
  const $ = id => document.getElementById(id), main = $("main");
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const bottom = () => { const lines = $("lines"); if (lines) lines.scrollTop = lines.scrollHeight; };

  // --- sheets: one open at a time, above the reply
  function sheet(name) {
    const was = all(".sheet[id]").find(one => !one.hidden);
    for (const one of all(".sheet[id]")) one.hidden = one.id !== "sheet-" + name || !one.hidden;
    const open = name && $("sheet-" + name);
    if (open && !open.hidden) open.querySelector("textarea, select, input").focus();
    else if (was) document.querySelector(`[data-sheet="${was.id.slice(6)}"]`)?.focus();
  }
  function show(article, part) {
    for (const item of all("[data-edit], [data-why], [data-answer]", article)) item.hidden = !part || item.dataset[part] === undefined;
    for (const item of all("[data-first], [data-shown]", article)) item.hidden = Boolean(part) && !(item.matches("[data-shown]") && part !== "edit");
    const field = part && article.querySelector(`[data-${part}] :is(input, textarea, select)`);
    (field || article.querySelector("[data-first]")).focus();
  }
  addEventListener("click", e => {
    const hit = e.target.closest("[data-sheet], [data-shut], [data-use], [data-open], [data-to]");
    if (!hit) return;
    const { sheet: named, to } = hit.dataset;
    if (named) sheet(named);
    else if (hit.matches("[data-shut]")) sheet("");
    else if (hit.matches("[data-use]")) { const box = $("reply-text"); box.value = $("suggest").querySelector("p").textContent; box.focus(); }
    else if (to) step(to);
    else show(hit.closest("article"), hit.dataset.open);
  });
  addEventListener("keydown", e => { if (e.key === "Escape") { const open = all(".sheet[id]").find(one => !one.hidden); if (open) sheet(""); } });

  // --- what was taken
  document.body.addEventListener("taken", e => {
    const { form, by, page } = e.detail;
    if (by?.matches("[data-draft]")) { const box = $("reply-text"); box.value = page ? page.textContent : ""; box.focus(); return; }
    if (form.matches("[data-clear]")) form.reset();
    if (form.matches("[data-close]")) sheet("");
    document.body.dispatchEvent(new CustomEvent("queue"));
  });

  // --- a phone shows one pane
  function step(to) {
    main.dataset.step = to;
    for (const one of all(".steps button")) if (one.dataset.to === to) one.setAttribute("aria-current", "true"); else one.removeAttribute("aria-current");
    if (to === "talk") bottom();
  }
  step(main.dataset.step);

  // --- the newest words stay in sight, unless one reads further up
  let near = true;
  addEventListener("htmx:before:swap", () => { const lines = $("lines"); near = !lines || lines.scrollHeight - lines.scrollTop - lines.clientHeight < 60; });
  addEventListener("htmx:after:swap", () => { if (near) bottom(); });
  bottom();
})();
