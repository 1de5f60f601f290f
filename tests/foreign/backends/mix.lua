-- GETs with a body among answers without: each body has to be the target of its own request. Each thread has one connection,
-- so that the answer is to the request that was made last.
dofile(os.getenv("WRK_REPORT"))
wrong = 0

local stray = os.getenv("STRAY") or ""
local count, target, status = 0, nil, 200

function init()
  math.randomseed(tonumber(tostring({}):match("0x(%x+)"), 16) % 2147483647)
end

function request()
  count = count + 1
  status = ({200, 200, 200, 204, 304})[math.random(5)]
  target = string.format("/echo?of=%d-%d", math.random(1000000), count)
  if status ~= 200 then
    target = target .. "&status=" .. status .. stray
  end
  return wrk.format("GET", target)
end

function response(code, _, body)
  if code ~= status or body ~= (status == 200 and target or "") then
    wrong = wrong + 1
  end
end
