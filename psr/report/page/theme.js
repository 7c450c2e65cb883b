// Light or dark: the system's choice until the reader makes one, which is remembered where the browser allows it.
"use strict";

const theme = {
  system: matchMedia("(prefers-color-scheme: dark)"),
  button: document.getElementById("theme"),
  chosen: null,
  listeners: [],

  get dark() {
    return this.chosen ? this.chosen === "dark" : this.system.matches;
  },
  show() {
    if (this.chosen) document.documentElement.dataset.theme = this.chosen;
    this.button.setAttribute("aria-pressed", String(this.dark));
    this.listeners.forEach((listener) => listener());
  },
  // Paper is white: the light theme while the page is printed, without a change to what was chosen.
  set printing(on) {
    const shown = on ? "light" : this.chosen;
    if (shown) document.documentElement.dataset.theme = shown;
    else delete document.documentElement.dataset.theme;
  },
  colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  },
};

try {
  theme.chosen = localStorage.getItem("psr-report-theme");
} catch {
  // a page from a file may have no storage
}
theme.button.addEventListener("click", () => {
  theme.chosen = theme.dark ? "light" : "dark";
  try {
    localStorage.setItem("psr-report-theme", theme.chosen);
  } catch {
    // as above
  }
  theme.show();
});
theme.system.addEventListener("change", () => theme.show());
theme.show();
