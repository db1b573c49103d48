use stanchion::*;
use std::time::*;
#[tokio::main]
async fn main() -> Result<()> {
    let dir = std::env::args().nth(1).unwrap();
    let n: u64 = std::env::args().nth(2).unwrap().parse().unwrap();
    let lock = FifoLock::open(format!("{dir}/a.lock"))?;
    let l = lock.clone();
    tokio::spawn(async move {
    for _ in 0..100 { drop(l.acquire().await?); }
    let t = Instant::now();
    for _ in 0..n { drop(l.acquire().await?); }
    println!("cycle {:?}/{n} = {:?}", t.elapsed(), t.elapsed() / n as u32);
    Ok::<_, Error>(()) }).await.unwrap()?;
    if std::env::args().nth(3).is_some() {
        let t = Instant::now();
        let mut js = vec![];
        for _ in 0..100 { let l = lock.clone(); js.push(tokio::spawn(async move { for _ in 0..1000 { drop(l.acquire().await.unwrap()); } })); }
        for j in js { j.await.unwrap(); }
        println!("100 tasks handover {:?}", t.elapsed() / 100000);
        let m = std::sync::Arc::new(tokio::sync::Mutex::new(()));
        let t = Instant::now();
        let mut js = vec![];
        for _ in 0..100 { let l = m.clone(); js.push(tokio::spawn(async move { for _ in 0..1000 { drop(l.lock().await); } })); }
        for j in js { j.await.unwrap(); }
        println!("tokio {:?}", t.elapsed() / 100000);
    }
    Ok(())
}
