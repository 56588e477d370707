// Runs before anything is painted, so that a chosen darkness does not begin with a flash of light.
try {
  const choice = localStorage.getItem("tradent-theme");
  if (choice === "dark") document.getElementById("dark").media = "all";
  if (choice === "light") document.getElementById("dark").media = "not all";
} catch {
  // a browser that keeps nothing: as the system
}
