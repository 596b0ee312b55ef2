// What js-libp2p uses of the language and Node 20 does not have. Imported before everything else.

Promise.withResolvers ??= function () {
  const parts = {}
  parts.promise = new Promise((resolve, reject) => Object.assign(parts, { resolve, reject }))
  return parts
}
