const form = document.getElementById("login");
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const message = document.getElementById("message");
  message.textContent = "";
  const response = await fetch("/api/v1/login", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ token: document.getElementById("token").value }),
  });
  if (response.ok) location.assign("/");
  else if (response.status === 429) message.textContent = "Too many tries. Wait a minute.";
  else message.textContent = "This token lets nobody in.";
});
