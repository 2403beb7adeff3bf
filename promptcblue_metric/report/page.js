"use strict";
(() => {
  const root = document.documentElement;
  const all = (selector) => [...document.querySelectorAll(selector)];
  const saved = {
    get: (name) => { try { return localStorage.getItem(name); } catch { return null; } },
    set: (name, value) => { try { localStorage.setItem(name, value); } catch { /* a page from a file may have no storage */ } },
  };

  const speak = (language) => {
    root.lang = language;
    const key = language === "en" ? "en" : "zh";
    for (const element of all("[data-en]")) element.textContent = element.dataset[key];
    for (const element of all("[data-label-en]")) {
      element.setAttribute("aria-label", element.dataset[key === "en" ? "labelEn" : "labelZh"]);
    }
  };
  const language = document.getElementById("language");
  const theme = document.getElementById("theme");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
  language.addEventListener("click", () => {
    speak(root.lang === "en" ? "zh-CN" : "en");
    saved.set("promptcblue-language", root.lang);
  });
  theme.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    saved.set("promptcblue-theme", root.dataset.theme);
  });
  const theirs = navigator.language.startsWith("zh") ? "zh-CN" : "en";
  speak(["en", "zh-CN"].includes(saved.get("promptcblue-language")) ? saved.get("promptcblue-language") : theirs);
  if (["light", "dark"].includes(saved.get("promptcblue-theme"))) root.dataset.theme = saved.get("promptcblue-theme");

  const tasks = all("details.task");
  for (const [id, open] of [["open-all", true], ["close-all", false]]) {
    document.getElementById(id).addEventListener("click", () => tasks.forEach((task) => { task.open = open; }));
  }
  const openTarget = () => {
    const target = tasks.find((task) => `#${task.id}` === decodeURIComponent(location.hash));
    if (target) target.open = true;
  };
  addEventListener("hashchange", openTarget);
  openTarget();

  const form = document.getElementById("filters");
  const fields = ["task", "kind", "state", "text"].map((name) => form.elements[name]);
  const samples = all("article.sample");
  const words = new Map(samples.map((sample) => [sample, sample.textContent.toLowerCase()]));
  const filter = () => {
    const [task, kind, state, text] = fields.map((field) => field.value);
    let shown = 0;
    for (const sample of samples) {
      const fits = (!task || sample.dataset.task === task) && (!state || sample.dataset.state === state)
        && (!kind || sample.dataset.kinds.split("|").includes(kind))
        && (!text || words.get(sample).includes(text.toLowerCase()));
      sample.hidden = !fits;
      shown += fits;
    }
    for (const number of all("#shown .shown")) number.textContent = shown;
    document.getElementById("none").hidden = shown > 0;
  };
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(filter));
  for (const link of all("a[data-task]")) {
    link.addEventListener("click", () => {
      form.reset();
      form.elements.task.value = link.dataset.task;
      filter();
    });
  }
  // Where a table goes on beyond the edge, its edge fades and says so.
  const regions = all(".scroll");
  const look = (region) => region.classList.toggle("more", region.scrollLeft + region.clientWidth < region.scrollWidth - 2);
  const watch = new ResizeObserver((entries) => entries.forEach((entry) => look(entry.target)));
  for (const region of regions) {
    region.addEventListener("scroll", () => look(region), { passive: true });
    watch.observe(region);
  }
  for (const element of all("[data-needs-script]")) element.hidden = false;
  filter();
})();
