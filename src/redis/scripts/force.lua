-- ARGV: 3 'all', 'idle' or a token.
-- With 'all' or a token: ends these holds without asking the holders, and replies how many.
-- With 'idle': deletes all keys if there is no holder and no waiter, and an acquire would be granted
-- now. Replies 1 if they are deleted, else 0.
if state then check_server() end
reap()
if ARGV[3] == 'idle' then
  if S.used > 0 or redis.call('ZCARD', KEYS[3]) > 0 or blocked_for() > 0 or is_torn then
    if state then
      grant()
      save()
    end
    return 0
  end
  redis.call('DEL', unpack(KEYS, 1, 6))
  return 1
end
local ended = 0
for _, r in ipairs(holders_up_to(-1)) do
  if ARGV[3] == 'all' or r.token == ARGV[3] then
    expire(r)
    ended = ended + 1
  end
end
if state then
  grant()
  save()
end
return ended
