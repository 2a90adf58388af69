// Light, dark, or as the system has it. The colours themselves are in style.css.

const NAMES = ["system", "light", "dark"];
const system = matchMedia("(prefers-color-scheme: dark)");
let listeners = [];
let now = NAMES.includes(localStorage.getItem("theme")) ? localStorage.getItem("theme") : "system";
const probe = document.createElement("i");

function apply() {
  document.documentElement.dataset.theme = now;
  for (const listener of listeners) listener();
}

export function isDark() {
  return now === "dark" || (now === "system" && system.matches);
}

// The value now of a colour that style.css defines.
export function colour(name) {
  if (!probe.isConnected) {
    probe.hidden = true;
    document.body.append(probe);
  }
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}

export function startTheme(button, listener) {
  listeners = [listener];
  const say = () => {
    button.textContent = `◐ ${now}`;
    button.setAttribute("aria-label", `Theme: ${now}`);
  };
  button.addEventListener("click", () => {
    now = NAMES[(NAMES.indexOf(now) + 1) % NAMES.length];
    localStorage.setItem("theme", now);
    say();
    apply();
  });
  system.addEventListener("change", apply);
  say();
}

document.documentElement.dataset.theme = now;
