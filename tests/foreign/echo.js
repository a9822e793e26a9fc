// node echo.js TARGET COUNT: calls a target of xDS so often, and prints who answered.
const grpc = require('@grpc/grpc-js')
require('@grpc/grpc-js-xds').register()

const [target, count] = process.argv.slice(2)
const bytes = (value) => Buffer.from(value)
const Echo = grpc.makeGenericClientConstructor({
  Say: {
    path: '/echo.Echo/Say', requestStream: false, responseStream: false,
    requestSerialize: bytes, requestDeserialize: bytes,
    responseSerialize: bytes, responseDeserialize: bytes,
  },
}, 'Echo')
const client = new Echo(target, grpc.credentials.createInsecure())
const shares = {}
const errors = {}

function call(left) {
  if (left === 0) {
    console.log(JSON.stringify({ shares, errors }))
    process.exit(0)
  }
  client.Say(bytes('?'), { deadline: Date.now() + 20_000 }, (error, answer) => {
    const [counts, name] = error ? [errors, error.details] : [shares, answer.toString()]
    counts[name] = (counts[name] ?? 0) + 1
    call(left - 1)
  })
}
call(Number(count))
