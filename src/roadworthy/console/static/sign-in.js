// A link from elsewhere arrives without the cookie, which is of this site's own pages only: from
// here, a page of this site, it is sent.
"use strict";
const base = document.documentElement.dataset.base;
const to = new URLSearchParams(location.search).get("to");
if (to && to.startsWith(base + "/") && !to.startsWith("//") && !to.includes("\\"))
  fetch(base + "/console/me").then(r => r.status === 204 && location.replace(to));
