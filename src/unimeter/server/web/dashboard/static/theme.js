// Before anything is drawn: the theme that was chosen here, if one was. A classic script, so that it blocks.
"use strict";
(() => {
  const asked = new URLSearchParams(location.search).get("theme");
  let chosen = asked === "light" || asked === "dark" ? asked : null;
  try {
    chosen = chosen || localStorage.getItem("unimeter-theme");
  } catch {
    // a frame without storage: the system's theme
  }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
