-- KEYS: 1 state, 2 queue, 3 alive, 4 hold, 5 who, 6 fence. Defines what every script below begins and ends with.
local STATE, QUEUE, ALIVE, HOLD, WHO, FENCE = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local PROTOCOL, TTL, FRESHEN = 1, 86400, 3600000000
-- A record: what one waiter id asked for, and what it was given.
local COST, MODE, LEASE, PATIENCE, CLAIM, DELAY, INBOX, DROPS, PID, HOST, LABEL, NUMBER, SINCE, TOKEN, OFFERED, CRASHED =
  1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16

local state = redis.call('HMGET', STATE, 'protocol', 'kind', 'limit', 'lease', 'seen', 'until', 'used', 'next', 'run', 'fresh', 'crashed', 'drops')
local time = redis.call('TIME')
local now = math.max(time[1] * 1000000 + time[2], tonumber(state[5]) or 0)
local known, kind, limit, lease = state[1], state[2], tonumber(state[3]) or 0, tonumber(state[4]) or 0
local not_before, used, number = tonumber(state[6]) or 0, tonumber(state[7]) or 0, tonumber(state[8]) or 0
local run, fresh, crashed, drops = state[9], tonumber(state[10]) or 0, tonumber(state[11]) or 0, tonumber(state[12]) or 0
local blind, changed, quarantine, me = 0, false, false, nil
-- Whether more than the everyday fields of the state have changed.
local anew = not known

local function int(x) return string.format('%.0f', x) end

local function record(id)
  local packed = redis.call('HGET', WHO, id)
  return packed and cmsgpack.unpack(packed)
end

local function keep(id, rec) redis.call('HSET', WHO, id, cmsgpack.pack(rec)) end

-- The name of its process's inbox; behind a dash when nobody is told there, because the server does not let it listen.
local function inbox(rec) return string.sub(rec[INBOX], 1, 1) ~= '-' and rec[INBOX] end

-- Whether anything may be granted at all now. Asks the server who it is, once, and only when there is something to grant.
local asked = false
local function open()
  if quarantine and not asked then
    asked = true
    local info = redis.pcall('INFO', 'server')
    if type(info) ~= 'string' then
      blind = 1
    else
      local id, up = string.match(info, 'run_id:(%x+)'), tonumber(string.match(info, 'uptime_in_seconds:(%d+)')) * 1000000
      if run ~= id then
        if run or redis.call('EXISTS', FENCE) == 1 then
          not_before = math.max(not_before, now + lease)
        elseif up < lease then
          not_before = math.max(not_before, now + lease - up)
        end
        run, changed, anew = id, true, true
      end
    end
  end
  return now >= not_before
end

local function mint(mode)
  local last = tonumber(redis.call('GET', FENCE) or 0)
  if mode == 's' and last > 0 then return last end
  local token = math.max(last + 1, now)
  redis.call('SET', FENCE, int(token))
  return token
end

-- Ends a hold that its holder has not given back: it is told of it, and the next one too.
local function expire(id, rec)
  redis.call('ZREM', HOLD, id)
  redis.call('HDEL', WHO, id)
  used, changed = used - rec[COST], true
  if rec[MODE] == 'x' then crashed = 1 end
  if rec[DELAY] > 0 then not_before = math.max(not_before, now + rec[DELAY]) end
  if inbox(rec) then redis.pcall('PUBLISH', rec[INBOX], 'lost ' .. id) end
end

-- Takes an offer back that nobody has claimed. Its waiter keeps its number, and is first again when it wakes.
local function pass(id, rec)
  redis.call('ZREM', HOLD, id)
  used, changed = used - rec[COST], true
  if rec[CRASHED] == 1 then crashed = 1 end
  rec[TOKEN], rec[OFFERED], rec[CRASHED] = 0, 0, 0
  if redis.call('ZSCORE', ALIVE, id) then keep(id, rec) else redis.call('HDEL', WHO, id) end
end

-- After somebody has deleted a key underneath: what is left on record counts.
local function recount()
  used, changed = 0, true
  if redis.call('EXISTS', HOLD) == 0 then
    for _, id in ipairs(redis.call('HKEYS', WHO)) do
      local rec = record(id)
      if rec[TOKEN] > 0 then redis.call('ZADD', HOLD, int(now + rec[LEASE]), id) end
    end
  end
  for _, id in ipairs(redis.call('ZRANGE', HOLD, 0, -1)) do
    local rec = record(id)
    if rec then used = used + rec[COST] else redis.call('ZREM', HOLD, id) end
  end
end

local function reap()
  if used > 0 and redis.call('EXISTS', HOLD) == 0 then recount() end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', HOLD, '-inf', int(now))) do
    local rec = record(id)
    if not rec then recount()
    elseif rec[OFFERED] == 1 then pass(id, rec)
    else expire(id, rec) end
  end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', ALIVE, '-inf', int(now))) do
    redis.call('ZREM', ALIVE, id)
    redis.call('ZREM', QUEUE, id)
    changed = true
    if not redis.call('ZSCORE', HOLD, id) then redis.call('HDEL', WHO, id) end
  end
end

-- Lets one in. Whoever runs this script hears by its reply; another one by its inbox, and must claim.
local function let_in(id, rec)
  redis.call('ZREM', QUEUE, id)
  changed = true
  local expiry = now + rec[LEASE]
  rec[OFFERED] = 0
  if id ~= me then
    local heard = inbox(rec) and redis.pcall('PUBLISH', rec[INBOX], 'offer ' .. id)
    -- Nobody listens there: its process is gone or cut off.
    if heard == 0 then return false end
    expiry, rec[OFFERED] = now + rec[CLAIM], 1
  else
    redis.call('ZREM', ALIVE, id)
  end
  rec[TOKEN], rec[CRASHED], rec[SINCE] = mint(rec[MODE]), crashed, now
  crashed, used = 0, used + rec[COST]
  if redis.call('ZADD', HOLD, int(expiry), id) == 1 and used == rec[COST] then
    redis.call('EXPIRE', HOLD, TTL)
  end
  keep(id, rec)
  if used == rec[COST] then redis.call('EXPIRE', WHO, TTL) end
  return true
end

local function grant()
  while used < limit do
    local id = redis.call('ZRANGE', QUEUE, 0, 0)[1]
    if not id then return end
    local rec = record(id)
    if not rec then
      redis.call('ZREM', QUEUE, id)
    elseif used + rec[COST] > limit or not open() then
      return
    else
      let_in(id, rec)
    end
  end
end

-- Holders that want to be out as soon as they are cut off: their inbox has no listener.
local function drop_the_cut_off()
  local found = false
  if drops == 0 or used == 0 or redis.call('EXISTS', QUEUE) == 0 then return found end
  for _, id in ipairs(redis.call('ZRANGE', HOLD, 0, 15)) do
    local rec = record(id)
    if rec and rec[DROPS] == 1 and rec[OFFERED] == 0 and inbox(rec) then
      local heard = redis.pcall('PUBSUB', 'NUMSUB', rec[INBOX])
      if type(heard[2]) == 'number' and heard[2] == 0 then
        expire(id, rec)
        found = true
      end
    end
  end
  return found
end

local function settle()
  reap()
  grant()
  if drop_the_cut_off() then grant() end
end

-- In how many microseconds something may change without anybody's doing; 0 for never.
local function wake()
  local next = 0
  if now < not_before then
    next = not_before - now
  else
    local first = redis.call('ZRANGE', HOLD, 0, 0, 'WITHSCORES')[2]
    if first then next = math.max(tonumber(first) - now, 1) end
  end
  if drops == 1 and (next == 0 or next > 500000) then next = 500000 end
  return next
end

local function save()
  if not changed then return end
  redis.call('HSET', STATE, 'seen', int(now), 'until', int(not_before), 'used', int(used), 'next', int(number), 'crashed', crashed)
  if anew then
    redis.call('HSET', STATE, 'protocol', PROTOCOL, 'kind', kind, 'limit', int(limit), 'lease', int(lease), 'run', run or '', 'drops', drops)
  end
  if now - fresh > FRESHEN then
    redis.call('HSET', STATE, 'fresh', int(now))
    for key = 1, 5 do redis.call('EXPIRE', KEYS[key], TTL) end
  end
end
