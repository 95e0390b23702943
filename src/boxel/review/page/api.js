// Requests to the server. An answer that is not OK becomes an Error whose message a person can read.

export class Conflict extends Error {}

async function request(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("Not saved: the server does not answer. Start `boxel review` again, and open the new link.");
  }
  if (answer.ok) return answer.json();
  const reason = (await answer.json().catch(() => ({}))).error ?? `the server answers ${answer.status}`;
  if (answer.status === 409) throw new Conflict(reason);
  throw new Error(answer.status === 401 ? "Not saved: open the link of the running `boxel review`." : reason);
}

function post(path, body) {
  return request(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
}

let key = ""; // of the running server, without which a browser may show pictures that it kept of another dataset

export async function getDataset() {
  const dataset = await request("/api/dataset");
  key = dataset.key;
  return dataset;
}

export const getProgress = () => request("/api/progress");
export const getGuarantee = () => request("/api/guarantee");
export const getSelection = (filters) => request(`/api/selection?${new URLSearchParams(filters)}`);
export const getObjects = (rows) => request(`/api/objects?rows=${rows.join(",")}`);
export const getObject = (row) => request(`/api/objects/${row}`);
export const getVertices = (row) => request(`/api/objects/${row}/vertices`);
export const getNext = (count) => request(`/api/next?count=${count}`);
export const postChange = (row, version, change) => post(`/api/objects/${row}`, { version, change });
export const postObject = (image, category, box) => post(`/api/images/${image}/objects`, { category, box });
export const getImages = (images) => request(`/api/images?rows=${images.join(",")}`);
export const getImage = (image) => request(`/api/images/${image}`);

export function postImage(file) {
  const options = { method: "POST", headers: { "content-type": "application/octet-stream" }, body: file };
  return request(`/api/images?${new URLSearchParams({ name: file.name })}`, options);
}

export const thumbnailUrl = (object, plain) =>
  `/api/objects/${object.row}/thumbnail?key=${key}&version=${object.version}${plain ? "&plain=true" : ""}`;

export function partUrl(image, [x0, y0, x1, y1], width) {
  const window = { key, x0, y0, x1, y1, width };
  return `/api/images/${image}/part?${new URLSearchParams(window)}`;
}
