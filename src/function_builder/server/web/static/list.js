// The list of builds, read again every two seconds while it is in view.

const REFRESH_MILLISECONDS = 2000;

async function refresh() {
  const response = await fetch(location.href, { cache: "no-store" });
  if (response.status === 401) return "Sign in again: the session has ended.";
  if (!response.ok) return "The builder does not answer; trying again …";
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const body = page.querySelector("#builds tbody");
  const old = document.querySelector("#builds tbody");
  // A link that has the focus stays where it is.
  if (body && body.innerHTML !== old.innerHTML && !old.contains(document.activeElement)) {
    old.replaceWith(document.adoptNode(body));
  }
  return "";
}

for (;;) {
  await new Promise((resume) => setTimeout(resume, REFRESH_MILLISECONDS));
  if (document.hidden) continue;
  const live = document.getElementById("live");
  live.textContent = await refresh().catch(() => "The builder does not answer; trying again …");
  live.hidden = !live.textContent;
}
