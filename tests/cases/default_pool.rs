use crate::{Case, Ended};
use winddown::{default_pool, Registry};

pub const CASES: &[Case] = &[
    ("default_pool_at_exit", default_pool_at_exit),
    ("default_pool_after_shutdown", default_pool_after_shutdown),
    ("default_pool_in_hook", default_pool_in_hook),
    #[cfg(unix)]
    ("fork_default_pool", fork_default_pool),
];

/// Nothing but these two lines: everything else is made for them.
fn default_pool_at_exit() -> Ended {
    winddown::execute(|| {
        winddown::execute(|| println!("a follow-up")).unwrap();
        println!("a task");
    })?;
    Ok(())
}

fn default_pool_after_shutdown() -> Ended {
    let sum = winddown::spawn(|| 2 + 2)?;
    assert!(winddown::shutdown().is_clean());
    println!("{}: {}", sum.join()?, winddown::execute(|| ()).unwrap_err());
    Ok(())
}

/// It is first asked for when it can run nothing any more.
fn default_pool_in_hook() -> Ended {
    winddown::after_join("late", || {
        let refused = winddown::spawn(|| 5).unwrap_err();
        println!("{:?}: {}", refused.reason(), refused.into_inner()());
        assert!(default_pool().is_closed() && std::ptr::eq(default_pool(), default_pool()));
    })?;
    let report = winddown::shutdown();
    println!("clean: {}, pools: {}", report.is_clean(), report.pools().len());
    Ok(())
}

#[cfg(unix)]
fn fork_default_pool() -> Ended {
    use crate::fork::unix::{before_end, child};
    winddown::spawn(|| ())?.join()?;
    let parents = default_pool();
    for generation in ["child", "grandchild"] {
        let child = child(|| {
            let look = || {
                assert_eq!(parents.execute(|| ()).unwrap_err().reason(), winddown::RejectReason::Forked);
                assert!(!std::ptr::eq(default_pool(), parents));
                assert!(Registry::global().stats().iter().any(|stats| stats.name == "default"));
                assert_eq!(winddown::spawn(|| 7).unwrap().join().unwrap(), 7);
                winddown::execute(move || println!("a task of the {generation}")).unwrap();
                before_end();
            };
            match generation {
                "child" => look(),
                // Whose parent has not asked for one.
                _ => assert_eq!(crate::fork::unix::child(look).end(), "code 0"),
            }
        });
        assert_eq!(child.end(), "code 0");
    }
    winddown::execute(|| println!("a task of the parent"))?;
    before_end();
    Ok(())
}
